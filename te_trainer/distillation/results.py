"""`results.json`: every score of a run, as fractions, for programs."""

from __future__ import annotations

from itertools import product
from typing import Any

from datasets import Dataset

from te_trainer.config.types import Kind
from te_trainer.data import GoldSets, count_overlaps, count_shared
from te_trainer.distillation.gains import collect_gains
from te_trainer.distillation.selection import Selection, is_as_good_as_start
from te_trainer.runs.environment import describe_environment
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.scoring import Scorer

# What `health` holds of a training's record.
TRAINING_FACTS = ("attempt", "steps", "seconds", "loss", "num_input_tokens_seen")


def collect_results(selection: Selection, scorer: Scorer) -> dict[str, Any]:
    """Put the records of all stages together.

    Args:
        selection: Says which cycles are kept, and gives the records of the run.
        scorer: Scores the predictions of ensembles.

    Returns:
        `{"start", "cycles", "final", "pairs", "seconds", "environment"}`. Scores are `{"dev": f, "test": {task: f,
        "avg": f}}`, Spearman or ROC-AUC as a fraction, absent where there is no gold; `gains` are those of
        `collect_gains`. With several PLMs `start` and `final` hold an `ensemble` beside them. Where agreement chooses,
        `agreement` holds each PLM's measures by cycle. `health` holds what is known of each encoder without gold and of
        its training; `not_learnt` lists the students that have not learnt, as `Selection.failure` describes them, in
        the order of training. `as_good_as_start` of a kept encoder is what `is_as_good_as_start` says;
        `trusts_students` is there where students are kept whatever it says. `pairs` are those of the pool. `mining`
        says what `describe_mining` does without examples, how many `sentences` there were, and what `_candidates` has
        `left_out`.
    """
    store, plan, names = selection.store, selection.plan, list(selection.plan.models)
    kinds: list[Kind] = [student for _, student in plan.half_cycles]
    dev_pairs = 0 if scorer.gold.dev is None else scorer.gold.dev.different

    def scores(cycle: int, name: str, kind: Kind) -> dict[str, Any]:
        return dict(store.scores(EncoderKey(cycle, name, kind))["scores"])

    def final_entry(name: str, kind: Kind, cycle: int) -> dict[str, Any]:
        path = str(store.layout.kept_encoder(name, kind).absolute())
        record, before = (store.scores(key) for key in (EncoderKey(cycle, name, kind), EncoderKey.start(name)))
        good = cycle == 0 or is_as_good_as_start(record, before, dev_pairs, plan.held_out > 0)
        return {"cycle": cycle, "path": path, "as_good_as_start": good, **record["scores"]}

    def ensemble(keys: list[EncoderKey]) -> dict[str, Any]:
        """Scores of all PLMs' predictions as one, combined as labels are (the paper's ensemble rows)."""
        predictions = [store.predictions(key) for key in keys]
        return scorer.scores([plan.combine(columns) for columns in zip(*predictions, strict=True)])

    start: dict[str, Any] = {name: {"bi-encoder": scores(0, name, "bi-encoder")} for name in names}
    best = {name: {kind: selection.best_cycle(name, kind) for kind in kinds} for name in names}
    final: dict[str, Any] = {
        name: {kind: final_entry(name, kind, cycle) for kind, cycle in cycles.items() if cycle is not None}
        for name, cycles in best.items()
    }
    if len(names) > 1 and any(scorer.gold):
        start["ensemble"] = {"bi-encoder": ensemble([EncoderKey.start(name) for name in names])}
        final["ensemble"] = {
            kind: ensemble([EncoderKey(final[name][kind]["cycle"], name, kind) for name in names])
            for kind in kinds
            if all(kind in final[name] for name in names)
        }
    results: dict[str, Any] = {
        "start": start,
        "cycles": [
            {"cycle": cycle}
            | {
                name: {
                    kind: scores(cycle, name, kind) for kind in kinds if cycle <= selection.cycles_learnt[name, kind]
                }
                for name in names
            }
            for cycle in range(1, max(selection.cycles_learnt.values()) + 1)
        ],
        "final": final,
        "pairs": store.pairs,
    }
    if any(scorer.gold):
        results["gains"] = collect_gains(selection, scorer)
    results["health"] = _health(selection, kinds)
    if selection.trusts_students:
        results["trusts_students"] = True
    if mined := store.mined():
        results["mining"] = {key: value for key, value in mined.items() if key not in {"examples", "seconds"}}
    results["not_learnt"] = [
        failure
        for cycle, kind, name in product(range(1, store.cycles + 1), kinds, names)
        if store.is_scored(key := EncoderKey(cycle, name, kind)) and (failure := selection.failure(key))
    ]
    if plan.selector == "agreement":
        results["agreement"] = {name: selection.agreement(name) for name in names}
    return results | {
        "seconds": _seconds(selection),
        "environment": describe_environment(store.precision),
    }


def _health(selection: Selection, kinds: list[Kind]) -> dict[str, Any]:
    """`{"start": {NAME: {"bi-encoder": ENTRY}}, "cycles": [{"cycle": 1, NAME: {KIND: ENTRY}}]}`; an entry holds what
    `Probe.health` says, after a training `TRAINING_FACTS`, and how many pairs it learnt beside the pool's."""
    store, names = selection.store, selection.plan.models

    def entry(key: EncoderKey) -> dict[str, Any]:
        record, scored = store.training_record(key) if key.cycle else {}, store.scores(key)
        facts = {fact: record[fact] for fact in TRAINING_FACTS if record.get(fact) is not None}
        if scored["added_pairs"]:
            facts["added_pairs"] = scored["added_pairs"]
        return {**scored["health"], **facts}

    cycles = []
    for cycle in range(1, store.cycles + 1):
        keys = {name: [EncoderKey(cycle, name, kind) for kind in kinds] for name in names}
        entries = {name: {key.kind: entry(key) for key in each if store.is_scored(key)} for name, each in keys.items()}
        if any(entries.values()):
            cycles.append({"cycle": cycle} | entries)
    return {
        "start": {name: {"bi-encoder": entry(EncoderKey.start(name))} for name in names},
        "cycles": cycles,
    }


def count_gold_in_pool(pool: Dataset, sets: GoldSets) -> dict[str, Any]:
    """How many pairs of the sets with gold scores are in the pool, and of test sets in the dev set, in either order.

    Returns:
        `{"dev": ENTRY, "test": {task: ENTRY}}` with entries `{"name": s, "from_hub": b, "pairs": n, "in_pool": n}`,
        those of test sets with `in_dev` too; `dev` is absent where there is none, and so is `in_dev` then.
    """
    overlap: dict[str, Any] = {"test": {}}
    for (role, gold), count in zip(sets, count_overlaps(pool, [gold for _, gold in sets]), strict=True):
        entry = {"name": gold.name, "from_hub": gold.from_hub, "pairs": len(gold), "in_pool": count}
        if role == "dev":
            overlap = {"dev": entry} | overlap
        else:
            in_dev = {} if sets.dev is None else {"in_dev": count_shared(sets.dev, gold)}
            overlap["test"][gold.name] = entry | in_dev
    return overlap


def _seconds(selection: Selection) -> dict[str, float]:
    """Seconds by what was done in them, and their total; of a student that was trained once more those of both."""
    store = selection.store

    def earlier(keys: list[EncoderKey], name: str) -> list[dict[str, float]]:
        return [{"seconds": store.scores(key)["earlier_seconds"].get(name, 0.0)} for key in keys]

    starts = [EncoderKey.start(name) for name in selection.plan.models]
    trained = [
        EncoderKey(cycle, name, kind)
        for cycle in range(1, store.cycles + 1)
        for name in selection.plan.models
        for kind in selection.plan.kinds
        if store.is_scored(EncoderKey(cycle, name, kind))
    ]
    records: dict[str, list[dict[str, Any]]] = {}
    if store.trains_start:
        records["step0"] = [store.training_record(key) for key in starts]
    if mined := store.mined():
        records["mine"] = [mined]
    if grown := [store.grown_pairs(cycle) for cycle in range(1, store.cycles + 1) if store.has_grown_pairs(cycle)]:
        records["grow"] = grown
    for teacher, student in selection.plan.half_cycles:
        teachers = [key for key in (*starts, *trained) if key.kind == teacher and store.has_labels(key)]
        learners = [key for key in trained if key.kind == student]
        records[f"label_{teacher.split('-')[0]}"] = [store.label_record(key) for key in teachers]
        trainings = [store.training_record(key) for key in learners]
        records[f"train_{student.split('-')[0]}"] = [*trainings, *earlier(learners, "training_seconds")]
    scored = [store.scores(key) for key in (*starts, *trained)]
    records["evaluate"] = [*scored, *earlier(trained, "seconds")]
    records["health"] = [{"seconds": record["health_seconds"]} for record in scored]
    records["health"] += earlier(trained, "health_seconds")
    seconds = {stage: sum(record["seconds"] for record in entries) for stage, entries in records.items()}
    return {stage: round(value, 3) for stage, value in (seconds | {"total": sum(seconds.values())}).items()}
