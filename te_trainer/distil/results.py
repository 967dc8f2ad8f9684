"""`results.json`: every score of a run, as fractions, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.schema import Kind
from te_trainer.data import GoldSet, count_overlaps
from te_trainer.distil.cycle import HALF_CYCLES
from te_trainer.distil.selection import Selection, agreement
from te_trainer.runs.environment import describe_environment
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.scoring import Scorer

# What `labels` holds of a training's record.
TRAINING_FACTS = ("steps", "seconds", "loss", "num_input_tokens_seen")


def collect_results(selection: Selection, scorer: Scorer) -> dict[str, Any]:
    """Put the records of all stages together.

    Args:
        selection: Says which cycles are kept, and gives the records of the run.
        scorer: Scores the predictions of ensembles.

    Returns:
        `{"start", "cycles", "final", "seconds", "environment"}`. Scores are `{"dev": f, "test": {task: f,
        "avg": f}}`, Spearman or ROC-AUC as a fraction, absent where there is no gold. With several PLMs `start` and
        `final` hold an `ensemble` beside them. Where agreement chooses, `agreement` holds each PLM's measures by cycle.
    """
    store, names = selection.store, selection.names
    kinds: list[Kind] = [student for _, student in _half_cycles(selection)]

    def scores(cycle: int, name: str, kind: Kind) -> dict[str, Any]:
        return dict(store.scores(EncoderKey(cycle, name, kind))["scores"])

    def final_entry(name: str, kind: Kind) -> dict[str, Any]:
        cycle = selection.best_cycle(name, kind, store.cycles)
        path = str(store.layout.kept_encoder(name, kind).absolute())
        return {"cycle": cycle, "path": path, **scores(cycle, name, kind)}

    def ensemble(keys: list[EncoderKey]) -> dict[str, Any]:
        """Scores of all PLMs' predictions as one, combined as labels are (the paper's ensemble rows)."""
        predictions = [store.predictions(key) for key in keys]
        return scorer.scores([selection.combine(columns) for columns in zip(*predictions, strict=True)])

    start: dict[str, Any] = {name: {"bi-encoder": scores(0, name, "bi-encoder")} for name in names}
    final: dict[str, Any] = {name: {kind: final_entry(name, kind) for kind in kinds} for name in names}
    if len(names) > 1:
        start["ensemble"] = {"bi-encoder": ensemble([EncoderKey(0, name, "bi-encoder") for name in names])}
        final["ensemble"] = {
            kind: ensemble([EncoderKey(final[name][kind]["cycle"], name, kind) for name in names]) for kind in kinds
        }
    results = {
        "start": start,
        "cycles": [
            {"cycle": cycle} | {name: {kind: scores(cycle, name, kind) for kind in kinds} for name in names}
            for cycle in range(1, store.cycles + 1)
        ],
        "final": final,
    }
    if selection.how == "agreement":
        results["agreement"] = {name: selection.agreement(name) for name in names}
    return results | {
        "seconds": _seconds(selection),
        "environment": describe_environment(store.precision),
    }


def label_statistics(selection: Selection) -> dict[str, Any]:
    """What is known of each encoder without gold: the labels that it gave to the pool, and its training.

    Returns:
        `{"start": {NAME: {"bi-encoder": ENTRY}}, "cycles": [{"cycle": 1, NAME: {KIND: ENTRY}}]}`. An entry has `mean`,
        `std` and `distinct` of its labels; after a training also `agreement`, Spearman's correlation of its labels and
        those that it learnt from, as a fraction, and `TRAINING_FACTS`. The last bi-encoder has labels only where
        agreement chooses.
    """
    store, names = selection.store, selection.names
    starts = {name: EncoderKey(0, name, "bi-encoder") for name in names}
    cycles = []
    for cycle in range(1, store.cycles + 1):
        entry: dict[str, Any] = {"cycle": cycle} | {name: {} for name in names}
        for teacher, student in _half_cycles(selection):
            learnt = selection.combine(store.labels(EncoderKey.teacher(cycle, name, teacher)) for name in names)
            for name in names:
                key = EncoderKey(cycle, name, student)
                facts: dict[str, Any] = {}
                if store.has_labels(key):
                    labels = store.labels(key)
                    facts = _statistics(labels) | {"agreement": agreement(labels, learnt)}
                training = store.training_record(key)
                facts |= {fact: training[fact] for fact in TRAINING_FACTS if training.get(fact) is not None}
                entry[name][student] = facts
        cycles.append(entry)
    start = {name: {"bi-encoder": _statistics(store.labels(key))} for name, key in starts.items()}
    return {"start": start, "cycles": cycles}


def count_gold_in_pool(pool: Dataset, dev: GoldSet | None, tests: Sequence[GoldSet]) -> dict[str, Any]:
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
    overlap: dict[str, Any] = {"dev": entries.pop(0)} if dev is not None else {}
    return overlap | {"test": {entry["name"]: entry for entry in entries}}


def _statistics(labels: np.ndarray) -> dict[str, float | int]:
    mean, std = labels.mean(dtype=np.float64), labels.std(dtype=np.float64)
    return {"mean": float(mean), "std": float(std), "distinct": len(np.unique(labels))}


def _seconds(selection: Selection) -> dict[str, float]:
    """Seconds by what was done in them, and their total."""
    store = selection.store
    starts = [EncoderKey(0, name, "bi-encoder") for name in selection.names]
    trained = [
        EncoderKey(cycle, name, kind)
        for cycle in range(1, store.cycles + 1)
        for name in selection.names
        for kind in selection.kinds
    ]
    records: dict[str, list[dict[str, Any]]] = {}
    if store.trains_start:
        records["step0"] = [store.training_record(key) for key in starts]
    for teacher, student in _half_cycles(selection):
        teachers = [key for key in (*starts, *trained) if key.kind == teacher and store.has_labels(key)]
        learners = [key for key in trained if key.kind == student]
        records[f"label_{teacher.split('-')[0]}"] = [store.label_record(key) for key in teachers]
        records[f"train_{student.split('-')[0]}"] = [store.training_record(key) for key in learners]
    records["evaluate"] = [store.scores(key) for key in (*starts, *trained)]
    seconds = {stage: sum(record["seconds"] for record in entries) for stage, entries in records.items()}
    return {stage: round(value, 3) for stage, value in (seconds | {"total": sum(seconds.values())}).items()}


def _half_cycles(selection: Selection) -> tuple[tuple[Kind, Kind], ...]:
    return HALF_CYCLES["both" if "cross-encoder" in selection.kinds else "bi-encoder"]
