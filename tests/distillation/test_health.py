"""The health of an encoder, known without gold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset

from te_trainer.distillation.health import Probe, describe_health, why_no_teacher, why_not_learnt


def pool(rows: int) -> Dataset:
    return Dataset.from_dict(
        {
            "sentence1": [f"Customer {row} asks about the parcel number {row}." for row in range(rows)],
            "sentence2": [f"Where is the parcel of customer {row} now?" for row in range(rows)],
        }
    )


@pytest.mark.parametrize(
    ("rows", "held_out", "most"),
    [(20, 8, 8), (79, 8, 8), (96, 9, 9), (300, 30, 30), (387, 32, 38), (2_000, 60, 200), (40_000, 500, 500)],
)
def test_a_few_per_cent_are_held_out(rows, held_out, most):
    probe = Probe.draw(pool(rows), 0.03, seed=1)
    assert len(probe.rows) == held_out == len(np.unique(probe.rows))
    assert (np.diff(probe.rows) > 0).all()
    other = Probe.draw(pool(rows), 0.03, seed=2)
    assert list(probe.rows) == list(Probe.draw(pool(rows), 0.03, seed=1).rows)
    assert list(probe.rows) != list(other.rows)
    assert probe.held_out == (rows >= 20)
    assert sorted([*probe.rows, *probe.rows_to_learn(rows)]) == list(range(rows))
    assert list(Probe.draw(pool(rows), 0, seed=1).rows_to_learn(rows)) == list(range(rows))
    assert len(Probe.draw(pool(rows), 0.4, seed=1).rows_to_learn(rows)) == rows - most


def test_a_pair_that_is_held_out_is_not_learnt_in_the_other_order_either() -> None:
    """Nearest sentences that find each other are such pairs."""
    pairs = pool(100)
    both = Dataset.from_dict(
        {
            "sentence1": [*pairs["sentence1"], *pairs["sentence2"], pairs["sentence2"][2]],
            "sentence2": [*pairs["sentence2"], *pairs["sentence1"], pairs["sentence1"][18]],
        }
    )
    probe = Probe.draw(both, 0.1, seed=1)
    mirrored = [(row + 100) % 200 for row in probe.rows if row < 200]
    assert len(probe.rows) == 20 and {2, 18} < {*probe.rows} and 200 not in probe.rows
    assert sorted(probe.rows_to_learn(201)) == sorted(set(range(201)) - {*probe.rows, *mirrored})
    assert list(Probe.draw(both, 0, seed=1).rows_to_learn(201)) == list(range(201))


@pytest.mark.parametrize(("rows", "part", "judged"), [(1, 0.03, 1), (19, 0.03, 19), (19, 0, 19), (100, 0, 32)])
def test_where_nothing_is_held_out_no_tenth_bounds_the_pairs(rows: int, part: float, judged: int) -> None:
    probe = Probe.draw(pool(rows), part, seed=1)
    assert (len(probe.rows), probe.held_out) == (judged, False)


def test_health_is_that_of_pairs_nobody_has_learnt_from():
    pairs = pool(387)
    probe = Probe.draw(pairs, 0.03, seed=1)
    count, labels = len(probe.rows), np.random.default_rng(0).random(387).astype(np.float32)
    assert probe.pairs["sentence1"][:count] == pairs[probe.rows.tolist()]["sentence1"]
    assert probe.pairs["sentence2"][count : 2 * count] == pairs[probe.rows.tolist()]["sentence1"]
    graded = np.tile([1.0, 0.9, 0.5, 0.1], (len(probe.pairs["sentence1"]) - 2 * count) // 4)
    held_out = 0.5 * labels[probe.rows]
    health = probe.health(np.concatenate([held_out, held_out[::-1], graded]), labels)
    assert health["agreement"] == pytest.approx(1)
    assert health["spread"] == pytest.approx(0.5)
    assert health["graded"] == 1
    assert health["distinct"] == count == health["pairs"]
    assert health["orders"] < 0.9
    assert why_not_learnt(health) is None
    assert {"agreement", "spread"}.isdisjoint(probe.health(np.concatenate([held_out, held_out, graded])))


def test_labels_that_differ_by_rounding_alone_judge_nothing() -> None:
    probe = Probe.draw(pool(387), 0.03, seed=1)
    rng = np.random.default_rng(0)
    labels = (1 + 1e-7 * rng.standard_normal(387)).astype(np.float32)
    scores = rng.random(len(probe.pairs["sentence1"])).astype(np.float32)
    health = probe.health(scores, labels)
    assert {"agreement", "start", "spread"}.isdisjoint(health) and "orders" in health
    assert "pairs whose labels are all the same" in (why_not_learnt(health | {"graded": 1.0}) or "")
    assert "orders" not in probe.health(np.full_like(scores, 0.5), labels)
    few = Probe.draw(pool(7), 0.03, seed=1)
    assert "orders" not in few.health(rng.random(len(few.pairs["sentence1"])))


def test_what_cannot_be_computed_is_absent() -> None:
    """Results are JSON, which has no NaN: of short titles nothing can be edited, and equal labels order nothing."""
    titles = [f"lamp {row}" for row in range(60)]
    probe = Probe.draw(Dataset.from_dict({"sentence1": titles, "sentence2": titles[::-1]}), 0.03, seed=1)
    health = probe.health(np.arange(len(probe.pairs["sentence1"]), dtype=np.float32), np.ones(60, dtype=np.float32))
    assert {"graded", "agreement", "start", "spread"}.isdisjoint(health)
    assert json.dumps(health, allow_nan=False)
    assert health["distinct"] == len(probe.rows)
    said = f"standard deviation {health['std']:.3f}, distinct scores {len(probe.rows)}, agreement of both orders"
    assert describe_health(health).startswith(f"health: {said}")


def test_a_student_whose_labels_are_all_the_same_has_not_learnt() -> None:
    probe = Probe.draw(pool(387), 0.03, seed=1)
    scores = np.linspace(1, 0.9, len(probe.pairs["sentence1"]), dtype=np.float32)
    health = probe.health(scores, np.full(387, 0.5, dtype=np.float32)) | {"graded": 1.0}
    assert "it is judged by 32 pairs whose labels are all the same" in why_not_learnt(health)
    # three pairs may have the same label by chance
    assert why_not_learnt(health | {"pairs": 3}) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"agreement": 0.23}, "unlike the labels that it learnt (agreement 23.0; at least 50 is expected)"),
        ({"spread": 0.03}, "spread 0.03 times as widely as its labels; at least 0.25 is expected"),
        ({"graded": 0.55}, "than a lightly edited one (edits in order 55 %; at least 70 % is expected)"),
    ],
)
def test_what_shows_that_a_student_has_not_learnt(changed, reason):
    healthy = {"pairs": 8, "agreement": 0.9, "spread": 0.8, "graded": 0.95}
    assert why_not_learnt(healthy) is None
    assert reason in why_not_learnt(healthy | changed)
    assert why_not_learnt({"pairs": 1, "std": 0.1, "graded": float("nan")}) is None


def test_a_few_pairs_do_not_tell_whether_a_student_has_learnt() -> None:
    """Two order each other right or wrong by chance, and one alone orders nothing; edits tell all the same."""
    for pairs, tells in ((7, False), (8, True)):
        probe = Probe.draw(pool(pairs), 0.03, seed=1)
        scores, labels = (
            np.linspace(*ends, count, dtype=np.float32)
            for *ends, count in ((1, 0.9, len(probe.pairs["sentence1"])), (0, 1, pairs))
        )
        health = probe.health(scores, labels) | {"graded": 1.0}
        assert ("agreement" in health, "start" in health, "spread" in health) == (tells, tells, tells)
        assert (why_not_learnt(health) is not None) == tells
    assert "heavily edited" in why_not_learnt(health | {"pairs": 7, "agreement": 1.0, "spread": 1.0, "graded": 0.5})


def test_a_start_that_tells_texts_too_little_apart_is_named() -> None:
    assert "so that its labels may say nothing" in str(why_no_teacher({"graded": 0.48}))
    for unknown_or_enough in ({"graded": 0.7}, {"graded": None}, {"graded": float("nan")}, {}):
        assert why_no_teacher(unknown_or_enough) is None
