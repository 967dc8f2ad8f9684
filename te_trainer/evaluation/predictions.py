"""Every model's prediction for every pair, as Parquet: made once, and read by whoever wants to look closer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import Dataset

from te_trainer.config.schema import EvaluationConfig
from te_trainer.distillation.combine import combine
from te_trainer.distributed import ask_main_process, process_state
from te_trainer.evaluation.models import ScoredModel, distinct_members
from te_trainer.evaluation.sets import TaskSet
from te_trainer.files.atomic import atomic_folder
from te_trainer.files.records import damage_as_input_error
from te_trainer.models import load_encoder
from te_trainer.runs.commits import hub_commits
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import Fingerprint, RunManifest
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import predict
from te_trainer.runs.truncation import count_once, count_truncation, describe_truncation, read_truncations


def begin_or_continue(manifest: RunManifest[EvaluationConfig], models: list[ScoredModel], sets: list[TaskSet]) -> None:
    """Write `run.yaml`: what is evaluated, or refuse models or files that have changed since the evaluation began."""
    checkpoints = {member.checkpoint.name: member.checkpoint for member in distinct_members(models)}
    sources = [(task.source, manifest.config.data.dir) for task in sets]
    fingerprints = [
        Fingerprint(("models", name), checkpoint.fingerprint, f"models: the files of {name} have")
        for name, checkpoint in checkpoints.items()
    ]
    fingerprints += [
        Fingerprint(("tasks", task.source), task.gold.fingerprint(), f"tasks: the scored pairs of {task.source} have")
        for task in sets
    ]
    manifest.begin_or_continue(fingerprints, **hub_commits(list(checkpoints), sources))


def predict_all(root: Path, models: list[ScoredModel], sets: list[TaskSet], progress: RunProgress) -> None:
    """Predictions of every checkpoint, on all ranks, unless an earlier process made them."""
    members = distinct_members(models)
    progress.total = len(members)
    state = process_state()
    truncated = read_truncations(root)
    for member in members:
        progress.say(member.describe())
        if member.name in truncated:
            for line in describe_truncation(member.name, member.kind, truncated[member.name], "max_length"):
                progress.say(line)
        folder = RunLayout(root).model_predictions(member.name)
        if ask_main_process(folder.exists):
            progress.skip(1)
            continue
        progress.begin(member.name, 1)
        how: dict[str, Any] = {"pooling": member.pooling, "max_length": member.max_length, "prompt": member.prompt}
        encoder = load_encoder(member.checkpoint, **how)
        golds = [task.gold for task in sets]
        scores = predict(encoder, golds, None, RunLayout(root).gold_scratch, progress.advance)
        if state.is_main_process:
            _save(folder, sets, scores)
        progress.end()
        state.wait_for_everyone()


def count_truncations(root: Path, models: list[ScoredModel], sets: list[TaskSet]) -> None:
    """Count what each checkpoint cuts of all sets together, unless that is known."""

    def count() -> dict[str, Any]:
        pairs = dict.fromkeys(pair for task in sets for pair in task.gold.pairs)
        columns = Dataset.from_dict({"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]})
        counts = {}
        for member in distinct_members(models):
            tokenizer = member.checkpoint.tokenizer
            counts[member.name] = count_truncation(columns, member.kind, tokenizer, member.max_length, member.prompt)
        return counts

    count_once(root, count)


def predictions_of(root: Path, model: ScoredModel, sets: list[TaskSet]) -> list[np.ndarray]:
    """A model's predictions for each set, float32, shape (n,); an ensemble's mean is written beside its members'."""
    weights = [1.0] * len(model.members)
    predictions = [
        combine((_load(root, member.name, task) for member in model.members), "mean", weights) for task in sets
    ]
    folder = RunLayout(root).model_predictions(model.name)
    if not folder.exists():
        _save(folder, sets, predictions)
    return predictions


def _save(folder: Path, sets: list[TaskSet], predictions: Sequence[np.ndarray]) -> None:
    with atomic_folder(folder) as partial:
        for task, prediction in zip(sets, predictions, strict=True):
            columns = {**task.gold.columns, "score": task.gold.scores, "prediction": prediction}
            pyarrow.parquet.write_table(pyarrow.table(columns), partial / f"{task.gold.name}.parquet")


def _load(root: Path, name: str, task: TaskSet) -> np.ndarray:
    folder = RunLayout(root).model_predictions(name)
    path = folder / f"{task.gold.name}.parquet"
    with damage_as_input_error(path, f"the folder {folder}", "the same command predicts again"):
        predictions = pyarrow.parquet.read_table(path, columns=["prediction"])["prediction"].to_numpy()
        if len(predictions) != len(task.gold):
            raise ValueError("other pairs")
        return np.asarray(predictions)
