"""`results.json`: every score of a run, as fractions, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.schema import Kind
from te_trainer.data import GoldSet, count_overlaps
from te_trainer.distil.cycle import HALVES
from te_trainer.distil.selection import agreement
from te_trainer.distil.stages import StageRunner
from te_trainer.runs.environment import describe_environment

# What a training's record says that a reader of the results may want.
MEASURED = ("steps", "seconds", "loss", "num_input_tokens_seen")


def collect(runner: StageRunner) -> dict[str, Any]:
    """Put the records of all stages together.

    Returns:
        `{"start", "cycles", "final", "seconds", "environment"}`. Scores are `{"dev": f, "test": {task: f,
        "avg": f}}`, Spearman or ROC-AUC as a fraction, absent where there is no gold. With several PLMs `start` and
        `final` hold an `ensemble` beside them. Tokens are `{"real": n, "padding": n}` of each stage, over all ranks.
        Where agreement chooses, `agreement` holds each PLM's measures by cycle.

    The recipe adds `truncation`, `labels`, which `label_statistics` gives, and `overlap`, which `overlap` gives.
    """
    names = list(runner.models)
    cycles = range(1, runner.cycles + 1)
    order: list[Kind] = [student for _, student in HALVES[runner.config.distillation.students]]
    start: dict[str, Any] = {name: {"bi-encoder": runner.record(0, name, "bi-encoder")["scores"]} for name in names}
    final: dict[str, Any] = {}
    for name in names:
        final[name] = {}
        for kind in order:
            best = runner.best_cycle(name, kind, runner.cycles)
            path = str((runner.root / name / kind).absolute())
            final[name][kind] = {"cycle": best, "path": path, **runner.record(best, name, kind)["scores"]}
    if len(names) > 1:
        start["ensemble"] = {"bi-encoder": runner.ensemble("bi-encoder", start=True)}
        final["ensemble"] = {kind: runner.ensemble(kind) for kind in order}
    stages = _stages(runner)
    agrees = runner.config.distillation.selection == "agreement"
    return {
        "start": start,
        "cycles": [
            {"cycle": cycle}
            | {name: {kind: runner.record(cycle, name, kind)["scores"] for kind in order} for name in names}
            for cycle in cycles
        ],
        "final": final,
        **({"agreement": {name: runner.agreement(name) for name in names}} if agrees else {}),
        "seconds": _seconds(stages),
        "environment": describe_environment(runner.precision),
    }


def label_statistics(runner: StageRunner) -> dict[str, Any]:
    """What is known of each encoder without gold: the labels that it gave to the pool, and its training.

    Returns:
        `{"start": {NAME: {"bi-encoder": ENTRY}}, "cycles": [{"cycle": 1, NAME: {KIND: ENTRY}}]}`. An entry has `mean`,
        `std` and `distinct` of its labels; after a training also `agreement`, Spearman's correlation of its labels and
        those it learnt, as a fraction, and `steps`, `seconds` and the last `loss` that was logged. The last bi-encoder
        has labels only where agreement chooses.
    """
    names = list(runner.models)
    start = {name: {"bi-encoder": _label_statistics(runner.labels(1, name, "bi-encoder"))} for name in names}
    cycles = []
    for cycle in range(1, runner.cycles + 1):
        entry: dict[str, Any] = {"cycle": cycle} | {name: {} for name in names}
        for teacher, student in HALVES[runner.config.distillation.students]:
            learnt = runner.combine(runner.labels(cycle, name, teacher) for name in names)
            for name in names:
                found: dict[str, Any] = {}
                labelled_in = cycle + (student == "bi-encoder")
                if runner.labels_path(labelled_in, name, student).is_dir():
                    given = runner.labels(labelled_in, name, student)
                    found = _label_statistics(given) | {"agreement": agreement(given, learnt)}
                training = runner.training_record(cycle, name, student)
                found |= {key: training[key] for key in MEASURED if training.get(key) is not None}
                entry[name][student] = found
        cycles.append(entry)
    return {"start": start, "cycles": cycles}


def _label_statistics(labels: np.ndarray) -> dict[str, float | int]:
    spread = labels.astype(np.float64)
    return {"mean": float(spread.mean()), "std": float(spread.std()), "distinct": len(np.unique(labels))}


def overlap(pool: Dataset, dev: GoldSet | None, tests: Sequence[GoldSet]) -> dict[str, Any]:
    """How many pairs of the sets with gold scores are in the pool, in either order.

    Returns:
        `{"dev": ENTRY, "test": {task: ENTRY}}` with entries `{"name": s, "from_hub": b, "pairs": n, "in_pool": n}`;
        `dev` is absent where there is none.
    """
    sets = [*([dev] if dev is not None else []), *tests]
    entries = [
        {"name": gold.name, "from_hub": gold.from_hub, "pairs": len(gold), "in_pool": count}
        for gold, count in zip(sets, count_overlaps(pool, sets), strict=True)
    ]
    found: dict[str, Any] = {"dev": entries.pop(0)} if dev is not None else {}
    return found | {"test": {entry["name"]: entry for entry in entries}}


def _stages(runner: StageRunner) -> dict[str, list[dict[str, Any]]]:
    """The records of all stages by what was done in them."""
    found: dict[str, list[dict[str, Any]]] = {}
    if runner.config.step0 is not None:
        found["step0"] = [runner.training_record(0, name, "bi-encoder") for name in runner.models]
    for teacher, student in HALVES[runner.config.distillation.students]:
        found |= {f"label_{teacher.split('-')[0]}": [], f"train_{student.split('-')[0]}": []}
    found["evaluate"] = []
    for name in runner.models:
        found["evaluate"].append(runner.record(0, name, "bi-encoder"))
        for cycle in range(1, runner.cycles + 1):
            for kind in runner.kinds:
                short = kind.split("-")[0]
                found[f"label_{short}"].append(runner.label_record(cycle, name, kind))
                found[f"train_{short}"].append(runner.training_record(cycle, name, kind))
                found["evaluate"].append(runner.record(cycle, name, kind))
        if runner.config.distillation.selection == "agreement":
            found["label_bi"].append(runner.label_record(runner.cycles + 1, name, "bi-encoder"))
    return found


def _seconds(stages: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    seconds = {stage: sum(record["seconds"] for record in records) for stage, records in stages.items()}
    seconds["total"] = sum(seconds.values())
    return {key: round(value, 3) for key, value in seconds.items()}
