"""What a run of contrastive training looks at before it begins, and what it leaves at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from te_trainer.config.schema import ContrastiveConfig
from te_trainer.contrastive.stage import ContrastiveSettings
from te_trainer.data import GoldSet, SentenceManifest, build_sentences
from te_trainer.distil.preparation import (
    check_loggers,
    check_space,
    gold_fingerprints,
    refuse_changed,
    refuse_changed_gold,
)
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder, write_text
from te_trainer.files.records import damaged_run_file_as_input_error, read_json, read_run_file
from te_trainer.models import resolve_checkpoint
from te_trainer.runs.commits import commits_of, pin_models, pin_sets, set_commits_of
from te_trainer.runs.continuing import comparable, update_run_file
from te_trainer.runs.environment import describe_environment, library_versions
from te_trainer.runs.saved import check_encoder_files

ENCODER = "bi-encoder"


def check(config: ContrastiveConfig, root: Path) -> None:
    """Refuse models, values, loggers and disks that cannot be used.

    Raises:
        InputError: names the key, the model or the folder.
    """
    pin_models([config.model], root)
    pin_sets(_sources(config), root)
    ContrastiveSettings(config.contrastive).check(config.model)
    check_loggers(config.report_to)
    if not (root / "run.yaml").exists():
        weights = 4 * resolve_checkpoint(config.model).empty_model("bi-encoder").num_parameters()
        # the encoder, and three checkpoints of weights and AdamW's two moments while the newest is written
        check_space(root, weights + 3 * 3 * weights)


def prepare_sentences(
    config: ContrastiveConfig, root: Path, world_size: int, dev: GoldSet | None = None, tests: Sequence[GoldSet] = ()
) -> None:
    """Write the sentences and `run.yaml` into the output folder, or find them there.

    Raises:
        InputError: a source cannot be read, or it, the model or a gold score has changed since the run began, or there
            are too few sentences.
    """
    folder = root / "sentences"
    gold = gold_fingerprints(dev, list(tests))
    if (root / "run.yaml").exists():
        refuse_changed_gold(gold, root)
    settings = ContrastiveSettings(config.contrastive)
    if folder.exists():
        refuse_changed(SentenceManifest.load(folder)[0].sources, config.data.dir, root)
        _continue(config, root, None, world_size)
        return
    with atomic_folder(folder) as place:
        data = config.data
        found = build_sentences(
            data.sentences,
            place,
            column=data.column,
            columns=data.columns,
            split=data.split,
            benchmark_folder=data.dir,
            max_sentences=data.max_sentences,
            seed=config.seed,
        )
        settings.check_batch(found.num_rows, world_size)
        if (root / "run.yaml").exists():
            _continue(config, root, found, world_size)
            return
        content = {
            "config": comparable(config),
            "processes": world_size,
            "resolved": settings.training(world_size) | settings.encoder,
            "versions": library_versions(),
            "sentences": {"number": found.num_rows, "fingerprint": found.fingerprint},
            "model": resolve_checkpoint(config.model).fingerprint,
            **gold,
            **commits_of([config.model]),
            **set_commits_of(_sources(config)),
        }
        # run.yaml comes first: it makes the folder a run's, whenever the process is killed
        write_text(root / "run.yaml", yaml.safe_dump(content, sort_keys=False))


def _sources(config: ContrastiveConfig) -> list[tuple[str, str | None]]:
    data = config.data
    return [(source, data.dir) for source in (*data.sentences, *([data.dev] if data.dev else []), *data.test)]


def _continue(config: ContrastiveConfig, root: Path, read_again: SentenceManifest | None, world_size: int) -> None:
    """See that a run goes on with the model and the sentences that it began with."""
    begun = read_run_file(root, "model", "sentences")
    with damaged_run_file_as_input_error(root):
        same = read_again is None or begun["sentences"]["fingerprint"] == read_again.fingerprint
    if not same:
        raise InputError(f"data.sentences: they have changed since the run in {root} began; name another output_dir")
    if begun["model"] != resolve_checkpoint(config.model).fingerprint:
        raise InputError(
            f"model: the weights of {config.model} have changed since the run in {root} began; name another output_dir"
        )
    settings = ContrastiveSettings(config.contrastive)
    update_run_file(root, config, {"resolved": settings.training(world_size) | settings.encoder}, world_size)


def load_sentences(root: Path) -> tuple[SentenceManifest, Dataset]:
    """The sentences of a run."""
    return SentenceManifest.load(root / "sentences")


def collect(root: Path, training: dict[str, Any], precision: str) -> dict[str, Any]:
    """`{"start": {"bi-encoder": SCORES}, "final": {"bi-encoder": SCORES}, "training", "seconds", "environment"}`.

    Scores are fractions, `{"dev": f, "test": {task: f, ..., "avg": f}}`, absent where there is no gold. The training
    has its `steps` and the last `loss` that was logged.
    """
    then = "the same command scores the encoder again"
    training_seconds = float(training["seconds"])
    before, after = (read_json(record_path(root, when), "scores", "seconds", then=then) for when in ("start", "final"))
    evaluate = before["seconds"] + after["seconds"]
    seconds = {"train": training_seconds, "evaluate": evaluate, "total": training_seconds + evaluate}
    return {
        "start": {ENCODER: before["scores"]},
        "final": {ENCODER: {"path": str((root / ENCODER).absolute()), **after["scores"]}},
        "training": {key: training.get(key) for key in ("steps", "loss")},
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
        "environment": describe_environment(precision),
    }


def refuse_missing_encoder(root: Path) -> None:
    """Refuse to call a run finished whose encoder is not there any more, or is damaged.

    Raises:
        DamagedError: names it, what to delete, and what the same command does then.
    """
    folder = root / ENCODER
    delete = f"{root / 'results.json'}" + (f" and the folder {folder}" if folder.exists() else "")
    check_encoder_files(folder, delete=delete, then="the same command trains it again")


def record_path(root: Path, when: str) -> Path:
    """Scores of the encoder before ("start") or after ("final") the training."""
    return root / "scores" / f"{when}.json"
