"""Scores, their intervals and differences, under MTEB's names of keys."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from te_trainer.config.schema import EvaluationConfig
from te_trainer.config.types import Task
from te_trainer.data.readers import find_benchmark
from te_trainer.evaluation.models import ScoredModel
from te_trainer.evaluation.paper import paper_reference
from te_trainer.evaluation.predictions import predictions_of
from te_trainer.evaluation.sets import TaskSet
from te_trainer.metrics import TASK_METRICS
from te_trainer.metrics.bootstrap import COVERED, RESAMPLES, Score, resampled
from te_trainer.runs.environment import describe_environment
from te_trainer.runs.truncation import read_truncations

# What the metrics are called in MTEB's results, where that is something else than here.
MTEB_KEYS = {"average_precision": "similarity_ap"}


class ModelScores(NamedTuple):
    """What a model scores, by metric: on each set, and the means over each family of sets."""

    sets: dict[str, dict[str, Score]]
    averages: dict[Task, dict[str, Score]]


def collect(root: Path, config: EvaluationConfig, models: list[ScoredModel], sets: list[TaskSet]) -> dict[str, Any]:
    """Score the predictions that lie in a folder.

    Returns:
        `{"models": [{"name", "kind", "members", "tasks", "average", "paper"}], "differences", "columns", "truncation",
        "bootstrap", "environment"}`; all scores are fractions. Each of a model's `tasks` has the keys of MTEB's
        `TaskResult`; `main_score` is what the paper's tables have, Spearman or ROC-AUC. `average` is by family, `sts`
        or `binary`. `paper`, where asked for, holds the paper's figures for the same model. `truncation` says by
        checkpoint how many texts are longer than it reads.
    """
    scores = {model.name: _score(root, config, model, sets) for model in models}
    return {
        "models": [_model_result(model, scores[model.name], sets, config) for model in models],
        "differences": [_difference(one, two, scores) for one, two in itertools.combinations(scores, 2)],
        "columns": [
            {
                "task": task.gold.name,
                "title": task.title,
                "family": task.family,
                "pairs": len(task.gold),
                "different_pairs": task.gold.different,
            }
            for task in sets
        ],
        "truncation": read_truncations(root),
        "bootstrap": {"resamples": RESAMPLES, "interval": COVERED / 100, "seed": config.seed},
        "environment": describe_environment("float32"),
    }


def _score(root: Path, config: EvaluationConfig, model: ScoredModel, sets: list[TaskSet]) -> ModelScores:
    scores: dict[str, dict[str, Score]] = {}
    by_family: dict[Task, list[dict[str, Score]]] = {}
    for task, prediction in zip(sets, predictions_of(root, model, sets), strict=True):
        metrics, gold = TASK_METRICS[task.family], task.gold
        draws = resampled(metrics, prediction, gold.scores, gold.groups, seed=config.seed, name=gold.name)
        scores[gold.name] = {
            metric.__name__: Score(metric(prediction, gold.scores), drawn)
            for metric, drawn in zip(metrics, draws, strict=True)
        }
        by_family.setdefault(task.family, []).append(scores[gold.name])
    averages = {
        family: {metric: Score.mean([each[metric] for each in listed]) for metric in listed[0]}
        for family, listed in by_family.items()
    }
    return ModelScores(scores, averages)


def _model_result(
    model: ScoredModel, scores: ModelScores, sets: list[TaskSet], config: EvaluationConfig
) -> dict[str, Any]:
    members = [
        {"model": each.checkpoint.name, "kind": each.kind}
        | ({"pooling": each.pooling} if each.pooling else {})
        | ({"prompt": each.prompt} if each.prompt else {})
        | {"max_length": each.max_length}
        for each in model.members
    ]
    result: dict[str, Any] = {
        "name": model.name,
        "kind": model.kind,
        "members": members,
        "tasks": [_task_result(task, scores.sets[task.gold.name], model, config.data.split) for task in sets],
        "average": {family: _with_intervals(each) for family, each in scores.averages.items()},
    }
    if config.compare == "paper" and config.data.split == "test":
        reference = paper_reference([(member.checkpoint.name, member.kind) for member in model.members])
        if reference is not None:
            title, values = reference
            benchmarks = [(task.gold.name, find_benchmark(task.source)) for task in sets]
            known = {name: values[each.name] for name, each in benchmarks if each and each.name in values}
            result["paper"] = {"title": title, "scores": known}
    return result


def _with_intervals(scores: dict[str, Score]) -> dict[str, Any]:
    values = {metric: score.value for metric, score in scores.items()}
    return {**values, "intervals": {metric: score.interval for metric, score in scores.items()}}


def _task_result(task: TaskSet, scores: dict[str, Score], model: ScoredModel, split: str) -> dict[str, Any]:
    """What MTEB's `TaskResult` holds; intervals and the number of pairs beside its keys."""
    values: dict[str, float] = {}
    for metric, score in scores.items():
        key = MTEB_KEYS.get(metric, metric)
        values[key] = score.value
        if model.kind == "bi-encoder":
            values[f"cosine_{key.removeprefix('similarity_')}"] = score.value
    scored = {
        "hf_subset": "default",
        "languages": ["eng-Latn"] if task.mteb != task.gold.name else [],
        "main_score": next(iter(scores.values())).value,
        **values,
        "intervals": {metric: score.interval for metric, score in scores.items()},
        "pairs": len(task.gold),
    }
    return {
        "task_name": task.mteb,
        "dataset_revision": "no_revision_available",
        "mteb_version": None,
        "evaluation_time": None,
        "scores": {split: [scored]},
    }


def _difference(one: str, two: str, scores: dict[str, ModelScores]) -> dict[str, Any]:
    """How much higher the first model scores, by the main metric, on the same resamples."""

    def between(first: dict[str, Score], second: dict[str, Score]) -> dict[str, Any]:
        metric = next(iter(first))
        difference = first[metric] - second[metric]
        return {"difference": difference.value, "interval": difference.interval}

    first, second = scores[one], scores[two]
    return {
        "models": [one, two],
        "tasks": {name: between(first.sets[name], second.sets[name]) for name in first.sets},
        "average": {family: between(first.averages[family], second.averages[family]) for family in first.averages},
    }
