"""The main job as one call in Python, for scripts and notebooks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.commands import distil as command
from te_trainer.config.commands import parse
from te_trainer.config.names import expand_home
from te_trainer.config.schema import RunConfig
from te_trainer.config.types import KINDS, Kind
from te_trainer.data.given import as_sources, write_given
from te_trainer.distributed import process_state
from te_trainer.errors import InputError
from te_trainer.files.locks import refuse_windows
from te_trainer.files.records import read_json
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import RunManifest

# Keys that the arguments of `distil` stand for.
ARGUMENTS = {"models": "model", "output_dir": "output_dir", "data.pool": "pairs"}


@dataclass(frozen=True)
class DistilledRun:
    """A finished run.

    Attributes:
        output_dir: The run's folder; `report.html` in it shows the run on one page.
        results: What `results.json` holds. Scores are fractions.
    """

    output_dir: Path
    results: dict[str, Any]

    @property
    def encoders(self) -> dict[str, dict[str, Path]]:
        """Folders of the kept encoders: `{NAME: {"bi-encoder": path, "cross-encoder": path}}`."""
        layout, final = RunLayout(self.output_dir), self.results["final"]
        return {
            name: {kind: layout.kept_encoder(name, kind) for kind in KINDS if kind in kinds}
            for name, kinds in final.items()
            if name != "ensemble"
        }

    @property
    def bi_encoder(self) -> str:
        """Folder of the first PLM's bi-encoder; `SentenceTransformer(run.bi_encoder)` loads it."""
        return self._first("bi-encoder")

    @property
    def cross_encoder(self) -> str:
        """Folder of the first PLM's cross-encoder; `CrossEncoder(run.cross_encoder)` loads it.

        Raises:
            InputError: The run keeps none: it trained bi-encoders alone, or no cross-encoder has learnt.
        """
        return self._first("cross-encoder")

    def _first(self, kind: Kind) -> str:
        name, folders = next(iter(self.encoders.items()))
        if kind not in folders:
            report = RunLayout(self.output_dir).report
            raise InputError(f"the run in {self.output_dir} keeps no {kind} of {name}; {report} says why")
        return str(folders[kind])


def distil(
    pairs: str | os.PathLike[str] | Dataset | Iterable[Any] | None,
    model: str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any],
    output_dir: str | os.PathLike[str],
    **keys: Any,
) -> DistilledRun:
    """Make a bi-encoder and a cross-encoder of unlabelled texts, as `te-trainer distil` does (Liu et al., ICLR 2022).

        run = te_trainer.distil(pairs, "princeton-nlp/unsup-simcse-bert-base-uncased", "runs/tickets", seed=1)
        SentenceTransformer(run.bi_encoder).encode("My router keeps restarting")

    The same call continues a run that was interrupted, and returns at once what a finished one has made. The library's
    log and warnings are quiet afterwards, and Trainers that were made before are not to be used any more. Under
    `accelerate launch`, a script makes one call.

    Args:
        pairs: Pairs (sentence1, sentence2), or dicts, a Dataset or a pandas DataFrame with these columns or those of
            `data.columns`, or sources as in `data.pool`: one name or a list of names. Pairs are written into the output
            folder, where the run reads them. None with `data={"sentences": ...}`, of which pairs are mined.
        model: The PLM that the run starts from, or several, as in `models`: a name, a mapping such as
            `{"bi_encoder": ..., "cross_encoder": ...}`, or a list of both.
        output_dir: Folder of the run.
        keys: Keys as a YAML file of the command holds them: `seed=1`, `distillation={"cycles": 2}`,
            `data={"dev": "dev.tsv"}`.

    Returns:
        The finished run.

    Raises:
        InputError: A key, a model or a source cannot be used, or the folder holds a run of other pairs or keys.
        DivergedError: A loss is NaN or infinite.
    """
    refuse_windows()
    layout = RunLayout(Path(expand_home(os.fspath(output_dir))))
    data = keys.get("data")
    sources, given = as_sources(pairs, data.get("columns") if isinstance(data, Mapping) else None)
    pool = [str(layout.python_pairs)] if len(given) else sources
    config = _configure(pool, model, output_dir, keys)

    def work(manifest: RunManifest[RunConfig]) -> None:
        try:
            if len(given) and process_state().is_main_process:
                write_given(given, layout.python_pairs, config.data.columns, begun=manifest.begun is not None)
            command.distil(manifest)
        except InputError:
            if len(given) and not layout.manifest.exists():
                layout.python_pairs.unlink(missing_ok=True)
            raise

    command.run(config, work)
    return DistilledRun(layout.root, read_json(layout.results, "final"))


def _configure(pool: list[str], model: Any, output_dir: Any, keys: dict[str, Any]) -> RunConfig:
    data = keys.get("data")
    in_section = {f"data.{name}" for name in data} if isinstance(data, Mapping) else set()
    for key, argument in ARGUMENTS.items():
        if key in keys.keys() | in_section:
            raise InputError(f"{key}: it is the argument {argument} of te_trainer.distil; give it there alone")
    config = parse(_plain({**keys, "models": model, "output_dir": output_dir, "data.pool": pool}))
    if config.distillation.isolate_stages:
        raise InputError(
            "distillation.isolate_stages: a stage in a process of its own needs the command te-trainer distil; leave "
            "the key out"
        )
    return config


def _plain(value: Any, key: str = "") -> Any:
    """A key's value as a YAML file gives it: paths are texts, sequences are lists, and numbers are Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(entry, f"{key}.{name}" if key else str(name)) for name, entry in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    section, kind = key.partition(".")[0], type(value).__name__
    if section == "models" and hasattr(value, "save_pretrained"):
        raise InputError(
            f"{key}: a {kind} where a model's name or folder is expected; save it with save_pretrained(FOLDER), one of "
            "transformers with its tokenizer, and give the folder"
        )
    if section == "data" and hasattr(value, "to_csv"):
        raise InputError(
            f"{key}: a {kind} where a source's name is expected; write it with to_csv('FILE.csv', index=False), and "
            "give the file's name"
        )
    return [_plain(entry, key) for entry in value] if isinstance(value, list | tuple) else value
