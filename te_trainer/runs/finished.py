"""A finished run, as its output folder describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from te_trainer.config.names import split_revision
from te_trainer.config.schema import DistillationConfig
from te_trainer.config.types import Kind, section_of
from te_trainer.data import PoolManifest, SentenceManifest, SourceCount
from te_trainer.errors import InputError
from te_trainer.files.records import read_json
from te_trainer.metrics import TASK_METRICS, spearman
from te_trainer.models import local_fingerprint
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import read_manifest

OF_THE_WHOLE_RUN = ("gains", "health", "not_learnt", "trusts_students", "mining", "pairs", "seconds")  # for cards


class Start(NamedTuple):
    """The checkpoint that an encoder started from."""

    name: str  # on the Hub, or of its folder
    commit: str | None  # None of a local one

    @staticmethod
    def of(model: str, fingerprint: str) -> Start:
        """A model as the configuration names it, without this machine's folders."""
        # a commit of the Hub is a whole SHA-1; of local weights there are shorter hashes
        if len(fingerprint) == 40:
            return Start(split_revision(model)[0], fingerprint)
        return Start(Path(model.replace(":", "/")).name, None)


@dataclass(frozen=True)
class FinishedRun:
    """What the output folder of a finished run of distillation says."""

    root: Path
    results: dict[str, Any]  # `results.json`
    manifest: dict[str, Any]  # `run.yaml`
    pool: PoolManifest

    @staticmethod
    def load(root: Path) -> FinishedRun:
        """Read an output folder."""
        run = load_finished(root)
        if not isinstance(run, FinishedRun):
            raise _no_distillation(root)
        return run

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.root)

    @property
    def names(self) -> list[str]:
        return [name for name in self.results["final"] if name != "ensemble"]

    @property
    def kinds(self) -> list[Kind]:
        """Kinds of encoders that were kept of any PLM; the bi-encoder first."""
        return sorted({kind for name in self.names for kind in self.kinds_of(name)})

    def kinds_of(self, name: str) -> list[Kind]:
        """Kinds of encoders that were kept of a PLM; the bi-encoder first."""
        return sorted(self.results["final"][name])

    @property
    def sources(self) -> list[SourceCount]:
        """What the texts of the pool were read from: its own sources, and those that its pairs were mined from."""
        if "mining" not in self.results:
            return self.pool.sources
        found = PoolManifest.read_sources(self.layout.given_pairs)
        found += SentenceManifest.read_sources(self.layout.mining)
        return list({count.source: count for count in found if not count.made_here}.values())

    @property
    def has_step0(self) -> bool:
        """Whether contrastive training made the bi-encoders that its cycles started from."""
        return self.manifest.get("step0") is not None

    def trains_from_start(self, kind: Kind) -> bool:
        """Whether encoders of a kind were trained from the checkpoint that `start` gives, not from what came of it."""
        return self.distillation.init == "refresh" and not (self.has_step0 and kind == "bi-encoder")

    @property
    def step0_sources(self) -> list[SourceCount]:
        """What the sentences of step 0 were read from; none where they are the pool's."""
        step0 = self.manifest["config"]["step0"]
        return SentenceManifest.read_sources(self.layout.sentences) if step0 and step0["data"]["sentences"] else []

    @property
    def cycles(self) -> list[int]:
        return [entry["cycle"] for entry in self.results["cycles"]]

    @property
    def whole_cycles(self) -> list[int]:
        """Numbers of the cycles in which every kind of encoder was trained; the last may have none of some kind."""
        trained = self.results["cycles"]
        return [
            entry["cycle"] for entry in trained if all(entry[name].keys() >= set(self.kinds) for name in self.names)
        ]

    @property
    def distillation(self) -> DistillationConfig:
        return DistillationConfig(**self.manifest["config"]["distillation"])

    @property
    def metric(self) -> str:
        """Name of the metric of the run's scores."""
        return TASK_METRICS[self.distillation.task][0].__name__

    def results_for(self, name: str) -> dict[str, Any]:
        """The results of one PLM."""
        cut = self.results["truncation"]
        return {
            "start": {name: self.results["start"][name]},
            "cycles": [{"cycle": entry["cycle"], name: entry[name]} for entry in self.results["cycles"]],
            "final": {name: self.results["final"][name]},
            "truncation": {name: cut[name]} if name in cut else {},
            **{key: self.results[key] for key in OF_THE_WHOLE_RUN if key in self.results},
        }

    def scores(self, name: str, kind: Kind, cycle: int | None) -> dict[str, Any]:
        """Scores of a cycle's encoder, or of the one that was kept where `cycle` is None."""
        if cycle is None:
            encoders = self.results["final"]
        else:
            encoders = next(entry for entry in self.results["cycles"] if entry["cycle"] == cycle)
        return dict(encoders[name][kind])

    def encoder(self, name: str, kind: Kind, cycle: int | None) -> Path:
        """Folder of a cycle's encoder, or of the one that was kept where `cycle` is None."""
        layout = self.layout
        folder = layout.kept_encoder(name, kind) if cycle is None else layout.encoder(cycle, name, kind)
        if (folder / "config.json").is_file():
            return folder
        if cycle is None:
            raise InputError(f"{folder} holds no encoder; it was moved or removed after the run")
        raise InputError(
            f"hub.branch_per_cycle: {folder} holds no encoder; only runs with distillation.keep_cycles have all cycles'"
        )

    def start_path(self, name: str) -> str:
        """The bi-encoder that a PLM's cycles started from, as a user names it; of the Hub, at the run's commit.

        A local folder's path is absolute where the folder is found, else as `run.yaml` has it. It may be relative to
        the folder that the run was started in, which is looked for above the run's own, and here.
        """
        if self.has_step0:
            return str(self.layout.encoder(0, name, "bi-encoder"))
        start, model = self.start(name, "bi-encoder"), str(self.model(name)["bi_encoder"])
        if start.commit:
            return f"{start.name}@{start.commit}"
        fingerprint = self.manifest["models"][name]["bi_encoder"]
        paths = dict.fromkeys(str(folder / model) for folder in (*self.root.resolve().parents, Path.cwd()))
        return next((path for path in paths if local_fingerprint(path) == fingerprint), model)

    def start(self, name: str, kind: Kind) -> Start:
        """The checkpoint that an encoder started from; with `init: sequential` all of a PLM start from one."""
        key = "bi_encoder" if self.distillation.init == "sequential" else section_of(kind)
        return Start.of(self.model(name)[key], self.manifest["models"][name][key])

    def model(self, name: str) -> dict[str, Any]:
        """A PLM's entry in the configuration."""
        return next(model for model in self.manifest["config"]["models"] if model["name"] == name)


@dataclass(frozen=True)
class FinishedContrastive:
    """What the output folder of finished contrastive training says: one PLM, one bi-encoder, no cycles."""

    root: Path
    results: dict[str, Any]  # `results.json`
    manifest: dict[str, Any]  # `run.yaml`
    sentences: SentenceManifest

    metric: ClassVar[str] = spearman.__name__

    @property
    def names(self) -> list[str]:
        return [Path(self.start().name).name]

    def kinds_of(self, name: str) -> list[Kind]:
        return ["bi-encoder"]

    def encoder(self, name: str, kind: Kind, cycle: int | None) -> Path:
        """Folder of the encoder; arguments as of `FinishedRun.encoder`."""
        folder = RunLayout(self.root).contrastive_encoder
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no encoder; it was moved or removed after the run")
        return folder

    def trains_from_start(self, kind: Kind) -> bool:
        """Whether its training began at the checkpoint that `start` gives: always."""
        return True

    def scores(self, name: str, kind: Kind, cycle: int | None) -> dict[str, Any]:
        """Scores of the encoder."""
        return dict(self.results["final"][kind])

    def start(self, *_: str) -> Start:
        """The plain PLM that the encoder started from."""
        return Start.of(self.manifest["config"]["model"], self.manifest["model"])


def load_finished(root: Path) -> FinishedRun | FinishedContrastive:
    """Read the output folder of finished distillation or contrastive training."""
    layout = RunLayout(root)
    if not layout.manifest.is_file():
        raise InputError(f"{root} holds no run.yaml; name the output folder of a run")
    results = finished_results(root)
    if "cycles" in results:
        return FinishedRun(root, results, read_manifest(root, "models"), PoolManifest.load(layout.pool)[0])
    if not layout.sentences.is_dir():  # an evaluation
        raise _no_distillation(root)
    manifest, results = read_manifest(root, "model", "sentences"), read_json(layout.results, "start", "final")
    return FinishedContrastive(root, results, manifest, SentenceManifest.load(layout.sentences)[0])


def finished_results(root: Path, key: str = "") -> dict[str, Any]:
    """Read the `results.json` of a finished run; `key` is what names the run's folder in the configuration."""
    file = RunLayout(root).results
    if not file.is_file():
        where = f"{key}: " if key else ""
        raise InputError(f"{where}{root} holds a run that is not finished; the command that began it continues")
    return read_json(file)


def _no_distillation(root: Path) -> InputError:
    return InputError(f"{root} holds no run of distillation; name the output folder of one")
