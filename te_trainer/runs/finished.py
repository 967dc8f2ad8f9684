"""A finished run as its folder tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from te_trainer.config.revision import split_revision
from te_trainer.config.schema import DistillationConfig, Kind
from te_trainer.data import PoolManifest
from te_trainer.errors import InputError
from te_trainer.files.records import DamagedError, read_json
from te_trainer.runs.manifest import read_manifest
from te_trainer.runs.saved import check_encoder_files


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder says of the run.

    Args:
        root: the folder.
        results: `results.json`.
        manifest: `run.yaml`.
        pool: its counts.
    """

    root: Path
    results: dict[str, Any]
    manifest: dict[str, Any]
    pool: PoolManifest

    @staticmethod
    def load(root: Path) -> FinishedRun:
        """Read a run's folder.

        Raises:
            InputError: the folder holds no finished run.
        """
        if not (root / "run.yaml").is_file():
            raise InputError(f"{root} holds no run.yaml; name the output folder of a run")
        if not (root / "results.json").is_file():
            raise InputError(f"{root} holds a run that is not finished; the command that began it continues")
        results = read_json(root / "results.json", "start", "final")
        if "cycles" not in results:
            raise InputError(f"{root} holds no run of trans_encoder.py; name the output folder of one")
        manifest = read_manifest(root, "models")
        return FinishedRun(root, results, manifest, PoolManifest.load(root / "pool")[0])

    @property
    def names(self) -> list[str]:
        """The PLMs."""
        return [name for name in self.results["final"] if name != "ensemble"]

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of encoders that were trained; the bi-encoder first."""
        return sorted(self.results["final"][self.names[0]])

    @property
    def cycles(self) -> list[int]:
        """The numbers of the cycles."""
        return [entry["cycle"] for entry in self.results["cycles"]]

    @property
    def distillation(self) -> DistillationConfig:
        """How it distilled."""
        return DistillationConfig(**self.manifest["config"]["distillation"])

    def results_for(self, name: str) -> dict[str, Any]:
        """The results of one PLM."""
        return {
            "start": {name: self.results["start"][name]},
            "cycles": [{"cycle": entry["cycle"], name: entry[name]} for entry in self.results["cycles"]],
            "final": {name: self.results["final"][name]},
        }

    def scores(self, name: str, kind: Kind, cycle: int | None) -> dict[str, Any]:
        """Scores of an encoder: of a cycle, or (None) of the one that was kept."""
        if cycle is None:
            return self.results["final"][name][kind]
        return next(entry[name][kind] for entry in self.results["cycles"] if entry["cycle"] == cycle)

    def encoder(self, name: str, kind: Kind, cycle: int | None) -> Path:
        """Folder of an encoder: of a cycle, or (None) of the one that was kept.

        Raises:
            InputError: it is not there.
        """
        folder = (self.root if cycle is None else self.root / f"cycle-{cycle}") / name / kind
        if not (folder / "config.json").is_file():
            if cycle is None:
                raise InputError(f"{folder} holds no encoder; it was moved or removed after the run")
            raise InputError(
                f"hub.branch_per_cycle: {folder} holds no encoder; only runs with distillation.keep_cycles have those "
                "of all cycles"
            )
        return folder

    def start(self, name: str, kind: Kind) -> tuple[str, bool]:
        """The checkpoint that an encoder started from, without this machine's folders, and whether it is the Hub's."""
        model = next(model for model in self.manifest["config"]["models"] if model["name"] == name)
        key = kind.replace("-", "_")
        # a commit of the Hub is a whole SHA-1; of local weights there are shorter hashes
        on_hub = len(self.manifest["models"][name][key]) == 40
        return (split_revision(model[key])[0] if on_hub else Path(model[key].replace(":", "/")).name), on_hub


def refuse_missing_encoders(root: Path, results: dict[str, Any]) -> None:
    """Refuse to call a run finished whose encoders are not there any more, or are damaged.

    Raises:
        InputError: names them, what to delete, and what the same command does then.
    """
    missing, delete = [], [root / "results.json"]
    for name, kinds in results["final"].items():
        for kind, entry in kinds.items() if name != "ensemble" else ():
            folder, of_cycle = root / name / kind, root / f"cycle-{entry['cycle']}" / name / kind
            if _is_whole(folder):
                continue
            missing.append(folder)
            delete += [folder] if folder.exists() else []
            if not _is_whole(of_cycle):
                record = of_cycle.with_name(f"{kind}.json")
                delete += [path for path in (of_cycle, record) if path.exists()]
    if missing:
        raise InputError(
            f"the run in {root} is finished, but not whole any more: {_listed(missing)} was moved, removed or damaged; "
            f"delete {_listed(delete)}, and the same command makes it again"
        )


def _is_whole(encoder: Path) -> bool:
    try:
        check_encoder_files(encoder)
    except DamagedError:
        return False
    return True


def _listed(paths: list[Path]) -> str:
    return " and ".join(map(str, paths))
