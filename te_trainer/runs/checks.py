"""What is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import DynamoBackend
from transformers import SchedulerType
from transformers.trainer_utils import IntervalStrategy
from transformers.training_args import OptimizerNames, trainer_log_levels

from te_trainer.config.names import check_set_names, is_folder
from te_trainer.config.schema import ContrastiveDataConfig, DataConfig, StudentConfig, TrainingConfig
from te_trainer.config.types import Task
from te_trainer.data import GoldSets, SourceCount, count_shared, load_gold
from te_trainer.data.digests import source_digest
from te_trainer.data.readers import source_path
from te_trainer.errors import InputError
from te_trainer.files.disk_errors import source_errors_as_input_error
from te_trainer.runs.manifest import Fingerprint, RunManifest
from te_trainer.trainers.official_adamw import TORCH_ADAMW, check_official_adamw

CHOICES: dict[str, list[Any]] = {
    "optim": list(OptimizerNames),
    # two schedules follow evaluations, and a training without gold scores has none
    "lr_scheduler_type": sorted(set(SchedulerType) - {SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY}),
    "logging_strategy": list(IntervalStrategy),
    "torch_compile_backend": [backend.value.lower() for backend in DynamoBackend],
    **{key: list(trainer_log_levels) for key in ("log_level", "log_level_replica")},
}

FEW_PAIRS = 100  # of a dev set


def check_section(section: str, config: TrainingConfig) -> None:
    """Refuse values of one section's training keys."""
    given = config.training
    for key, choices in CHOICES.items():
        known = [str(getattr(choice, "value", choice)) for choice in choices]
        if given.get(key) is not None and str(given[key]).lower() not in known:
            raise InputError(f"{section}.{key}: '{given[key]}' is none of {', '.join(known)}")
    if isinstance(config, StudentConfig) and config.official_adamw:
        asked = given.get("optim", TORCH_ADAMW[0]), given.get("adam_epsilon")
        check_official_adamw(*asked, key=f"{section}.official_adamw")


def check_loggers(loggers: Sequence[str]) -> None:
    """Refuse loggers that are not installed."""
    for logger in loggers:
        if importlib.util.find_spec(logger) is None:
            raise InputError(f"report_to: {logger} is not installed; pip install {logger}")


def check_space(root: Path, needed: int) -> None:
    """Refuse to begin where so many bytes are not free."""
    folder = next(path for path in [root.absolute(), *root.absolute().parents] if path.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"output_dir: {root} needs about {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; make room, or name "
            "a folder on another disk"
        )


def load_gold_sets(data: DataConfig | ContrastiveDataConfig, task: Task = "sts") -> GoldSets:
    """The dev set and the test sets."""
    if data.dir is not None and not is_folder(data.dir):
        raise InputError(f"data.dir: {data.dir} is no folder")
    dev = load_gold(data.dev, "dev", data.columns, data.dir) if data.dev else None
    sets = GoldSets(dev, tuple(load_gold(source, "test", data.columns, data.dir) for source in data.test))
    check_set_names([gold.name for role, gold in sets if role == "dev"], "data.dev", taken=())
    check_set_names([gold.name for gold in sets.tests], "data.test")
    for _, gold in sets if task == "binary" else ():
        if not set(gold.scores) <= {0.0, 1.0}:
            raise InputError(
                f"{gold.name}: distillation.task is 'binary', but gold scores other than 0 and 1 are in it; set "
                "distillation.task to 'sts', or name another set"
            )
    return sets


def describe_gold(sets: GoldSets) -> list[str]:
    """The sets' sizes, to print before work starts."""
    lines = []
    for role, gold in sets:
        lines.append(f"{role}: {gold.name}: {gold.describe()} dropped")
        lines += [f"{role}: {note}" for note in gold.notes]
        if role == "dev" and gold.different < FEW_PAIRS:
            lines.append(f"warning: dev: {gold.name} has few pairs; scores that differ by several points may be chance")
        if role == "test" and sets.dev is not None and 2 * (shared := count_shared(sets.dev, gold)) >= len(gold):
            lines.append(
                f"warning: test: {shared:,} of the {len(gold):,} pairs of {gold.name} are in the dev set, too; name a "
                "set of other pairs"
            )
    return lines


def gold_fingerprints(sets: GoldSets) -> list[Fingerprint]:
    """A hash of the rows of each set with gold scores."""
    return [
        Fingerprint(("gold", role, gold.name), gold.fingerprint(), f"data.{role}: the rows of {gold.name} have")
        for role, gold in sets
    ]


def refuse_changes_here(
    manifest: RunManifest[Any],
    sources: Iterable[tuple[Sequence[SourceCount], str | None]],
    models: Iterable[Fingerprint],
    task: Task = "sts",
) -> None:
    """Refuse that a run is finished where something that it stands on is on this machine and has changed.

    What is not there any more, or is the Hub's, is not looked at: a finished run needs it no more.

    Args:
        sources: What texts were read from, and the folder that benchmark sets would lie in.
        models: Fingerprints of the models; None stands for one that is not here.
    """
    for counts, folder in sources:
        refuse_changed_files(counts, folder, manifest.root)
    data = manifest.config.data
    dev, *tests = (source if source and source_path(source, data.dir) else None for source in (data.dev, *data.test))
    folder = data.dir if data.dir and is_folder(data.dir) else None
    gold = load_gold_sets(replace(data, dev=dev, test=[source for source in tests if source], dir=folder), task)
    manifest.refuse_changes([*(model for model in models if model.value is not None), *gold_fingerprints(gold)])


def refuse_changed_files(sources: Sequence[SourceCount], folder: str | None, root: Path) -> None:
    """Refuse to go on with files and folders that are not those a run began with."""
    for count in sources:
        path = None if count.made_here or count.sha256 is None else source_path(count.source, folder)
        with source_errors_as_input_error(count.source):
            changed = path is not None and source_digest(path) != count.sha256
        if path is not None and changed:
            kind = "folder" if path.is_dir() else "file"
            raise InputError(f"{path}: the {kind} has changed since the run in {root} began; name another output_dir")
