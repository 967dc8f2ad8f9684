"""Scores, their intervals and differences, under MTEB's names of keys."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from te_trainer.config.schema import EvaluationConfig, Task
from te_trainer.evaluation.models import Entry, papers_row
from te_trainer.evaluation.predictions import predictions_of, truncations
from te_trainer.evaluation.sets import METRICS, TaskSet
from te_trainer.metrics.bootstrap import COVERED, RESAMPLES, interval, resampled
from te_trainer.runs.environment import describe_environment

MTEB_KEYS = {"average_precision": "ap"}


@dataclass(frozen=True)
class Score:
    """A score and what it was in every resample, shape (RESAMPLES,); both fractions."""

    value: float
    resamples: np.ndarray


Scores = dict[str, dict[str, Score]]  # by task and metric


def collect(root: Path, config: EvaluationConfig, entries: list[Entry], sets: list[TaskSet]) -> dict[str, Any]:
    """Score the predictions that lie in a folder.

    Returns:
        `{"models": [{"name", "kind", "members", "tasks", "average", "paper"}], "differences", "columns", "truncation",
        "bootstrap", "environment"}`; all scores are fractions. Each of a model's `tasks` has the keys of MTEB's
        `TaskResult`; `main_score` is what the paper's tables have, Spearman or ROC-AUC. `average` is by family, `sts`
        or `binary`. `paper`, where asked for, holds the paper's figures for the same model. `truncation` says by
        checkpoint how many texts are longer than it reads.
    """
    found = {entry.name: _scores(root, config, entry, sets) for entry in entries}
    families = list(dict.fromkeys(task.family for task in sets))
    return {
        "models": [_model(entry, found[entry.name], families, sets, config) for entry in entries],
        "differences": [_difference(one, two, found, families, sets) for one, two in itertools.combinations(found, 2)],
        "columns": [
            {"task": task.gold.name, "title": task.title, "family": task.family, "pairs": len(task.gold)}
            for task in sets
        ],
        "truncation": truncations(root),
        "bootstrap": {"resamples": RESAMPLES, "interval": COVERED / 100, "seed": config.seed},
        "environment": describe_environment("float32"),
    }


def _scores(root: Path, config: EvaluationConfig, entry: Entry, sets: list[TaskSet]) -> Scores:
    found: Scores = {}
    for task, prediction in zip(sets, predictions_of(root, entry, sets), strict=True):
        metrics, gold = METRICS[task.family], task.gold
        draws = resampled(metrics, prediction, gold.scores, seed=config.seed, name=gold.name)
        found[gold.name] = {
            metric.__name__: Score(metric(prediction, gold.scores), drawn)
            for metric, drawn in zip(metrics, draws, strict=True)
        }
    return found


def _average(scores: Scores, family: Task, sets: list[TaskSet]) -> dict[str, Score]:
    """The unweighted mean over the sets of a family; each set is resampled by itself."""
    names = [task.gold.name for task in sets if task.family == family]
    averages = {}
    for metric in METRICS[family]:
        found = [scores[name][metric.__name__] for name in names]
        averages[metric.__name__] = Score(
            float(np.mean([score.value for score in found])), np.mean([score.resamples for score in found], axis=0)
        )
    return averages


def _model(
    entry: Entry, scores: Scores, families: list[Task], sets: list[TaskSet], config: EvaluationConfig
) -> dict[str, Any]:
    model: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "members": [
            {
                "model": member.path,
                "kind": member.kind,
                **({"pooling": member.pooling} if member.pooling else {}),
                "max_length": member.max_length,
            }
            for member in entry.members
        ],
        "tasks": [_task_result(task, scores[task.gold.name], entry, config.data.split) for task in sets],
        "average": {family: _plain(_average(scores, family, sets)) for family in families},
    }
    row = papers_row(entry) if config.compare == "paper" and config.data.split == "test" else None
    if row is not None:
        title, values = row
        known = {task.gold.name: values[task.gold.name] for task in sets if task.source in values}
        model["paper"] = {"title": title, "scores": known}
    return model


def _plain(scores: dict[str, Score]) -> dict[str, Any]:
    intervals = {name: list(interval(score.resamples)) for name, score in scores.items()}
    return {**{name: score.value for name, score in scores.items()}, "intervals": intervals}


def _task_result(task: TaskSet, scores: dict[str, Score], entry: Entry, split: str) -> dict[str, Any]:
    """What MTEB's `TaskResult` holds; intervals and the number of pairs beside its keys."""
    plain = _plain(scores)
    intervals = plain.pop("intervals")
    values: dict[str, float] = {}
    for metric, value in plain.items():
        key = MTEB_KEYS.get(metric, metric)
        values["similarity_ap" if key == "ap" else key] = value
        if entry.kind == "bi-encoder":
            values[f"cosine_{key}"] = value
    scored = {
        "hf_subset": "default",
        "languages": ["eng-Latn"] if task.mteb != task.gold.name else [],
        "main_score": next(iter(plain.values())),
        **values,
        "intervals": intervals,
        "pairs": len(task.gold),
    }
    return {
        "task_name": task.mteb,
        "dataset_revision": "no_revision_available",
        "mteb_version": None,
        "evaluation_time": None,
        "scores": {split: [scored]},
    }


def _difference(
    one: str, two: str, found: dict[str, Scores], families: list[Task], sets: list[TaskSet]
) -> dict[str, Any]:
    """How much higher the first model scores, by the main metric, on the same resamples."""

    def between(first: dict[str, Score], second: dict[str, Score], family: Task) -> dict[str, Any]:
        metric = METRICS[family][0].__name__
        low, high = interval(first[metric].resamples - second[metric].resamples)
        return {"difference": first[metric].value - second[metric].value, "interval": [low, high]}

    return {
        "models": [one, two],
        "tasks": {
            task.gold.name: between(found[one][task.gold.name], found[two][task.gold.name], task.family)
            for task in sets
        },
        "average": {
            family: between(_average(found[one], family, sets), _average(found[two], family, sets), family)
            for family in families
        },
    }
