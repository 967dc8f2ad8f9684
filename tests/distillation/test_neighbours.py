"""Which sentences have other neighbours by one encoder than by another."""

from __future__ import annotations

import numpy as np
from conftest import sample_pairs
from datasets import Dataset

from te_trainer.distillation import neighbours
from te_trainer.distillation.neighbours import changed_neighbours, draw_sentences


def circle(*degrees: float) -> np.ndarray:
    """Unit vectors at angles, so that the nearest are those at the nearest angles."""
    return np.array([[np.cos(np.radians(each)), np.sin(np.radians(each))] for each in degrees], dtype=np.float32)


def test_the_sentence_whose_neighbours_fell_furthest_is_the_first() -> None:
    degrees = [0, 1, 3, 7, 20, 21, 23, 27, 180, 181, 183, 187]
    sentences = [f"at {each}" for each in degrees]
    before = circle(*degrees)
    moved = [20.5, *degrees[1:]]
    # a hidden size of its own, and another length of all vectors
    after = np.pad(7 * circle(*moved), ((0, 0), (0, 3)))
    found = changed_neighbours(sentences, before, after)
    first = found["changed"][0]
    assert first["sentence"] == "at 0"
    assert [entry["sentence"] for entry in first["before"]] == ["at 1", "at 3", "at 7"]
    # nearer now: 20 and 21, then 23, 27, 7, 3, 1
    assert [entry["rank"] for entry in first["before"]] == [7, 6, 5]
    assert {entry["sentence"] for entry in first["after"]} == {"at 20", "at 21", "at 23"}
    assert [entry["rank"] for entry in first["after"]][-1] == 3
    assert first["before"][0]["cosine"] == round(float(np.cos(np.radians(1))), 4)
    # it was among the nearest of four and is now of others; those far off keep theirs
    assert (found["sentences"], found["unchanged"]) == (12, round(4 / 12, 4))
    named = [each["sentence"] for each in found["changed"]]
    assert len(set(named)) == len(named) == 6 and not any(name.startswith("at 18") for name in named)


def test_nothing_changed_where_nothing_moved() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    found = changed_neighbours([str(number) for number in range(50)], vectors, 3 * vectors)
    assert found == {"sentences": 50, "unchanged": 1.0, "changed": []}


def test_sentences_are_distinct_and_drawn_by_the_seed(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pairs = sample_pairs(40)
    columns = {
        "sentence1": [one for one, _ in pairs] + ["twice"] * 2,
        "sentence2": [two for _, two in pairs] + ["a"] * 2,
    }
    pool = Dataset.from_dict(columns)
    everything = draw_sentences(pool, 1)
    assert sorted(everything) == sorted({*columns["sentence1"], *columns["sentence2"]})
    monkeypatch.setattr(neighbours, "SENTENCES", 20)
    few = draw_sentences(pool, 1)
    assert len(few) == 20 and few == [each for each in everything if each in few]
    assert few == draw_sentences(pool, 1) != draw_sentences(pool, 2)
