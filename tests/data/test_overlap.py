"""Pairs of sets with gold scores that are in the pool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from te_trainer.config.schema import DataConfig
from te_trainer.data import GoldSet, GoldSets, PoolManifest, build_pool, count_overlaps, load_gold
from te_trainer.distillation.results import count_gold_in_pool
from te_trainer.runs.checks import describe_gold


def gold(name: str, *pairs: tuple[str, str]) -> GoldSet:
    one, two = zip(*pairs, strict=True)
    return GoldSet(name, list(one), list(two), np.arange(len(pairs), dtype=np.float64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool whose rows fill more than one block."""
    pairs = [("a", "b"), ("c ", " d"), ("x", "y"), *((f"one {number}", f"two {number}") for number in range(12_000))]
    rows = [json.dumps({"sentence1": one, "sentence2": two}) for one, two in pairs]
    (tmp_path / "pool.jsonl").write_text("\n".join(rows), encoding="utf-8")
    build_pool(DataConfig(pool=[str(tmp_path / "pool.jsonl")]), tmp_path / "pool")
    return tmp_path / "pool"


def test_pairs_are_found_in_either_order_whatever_source_they_came_from(folder: Path) -> None:
    sets = [
        gold("some", ("a", "b"), ("b", "a"), ("d", "c"), ("a", "c"), ("a", "a"), ("two 11999", "one 11999")),
        gold("none", ("a", "x"), ("ab", "")),
        gold("all", ("x", "y"), ("y", "x")),
    ]
    pool = PoolManifest.load(folder)[1]
    assert count_overlaps(pool, sets) == [4, 0, 2]
    assert count_overlaps(pool, []) == []
    found = count_gold_in_pool(pool, GoldSets(sets[0], tuple(sets[1:])))
    assert found["dev"] == {"name": "some", "from_hub": False, "pairs": 6, "in_pool": 4}
    assert {name: entry["in_pool"] for name, entry in found["test"].items()} == {"none": 0, "all": 2}
    assert {name: entry["in_dev"] for name, entry in found["test"].items()} == {"none": 0, "all": 0}
    shared = GoldSets(sets[0], (gold("half", ("x", "y"), ("c", "d")),))
    assert count_gold_in_pool(pool, shared)["test"]["half"]["in_dev"] == 1
    assert describe_gold(shared)[-1] == (
        "warning: test: 1 of the 2 pairs of half are in the dev set, too; name a set of other pairs"
    )
    assert "6 pairs with gold scores (1 of them repeated), 0 without dropped" in describe_gold(shared)[0]
    assert sets[0].different == 5 and sets[0].groups.tolist() == [0, 0, 1, 2, 3, 4]
    assert count_gold_in_pool(pool, GoldSets()) == {"test": {}}


def test_spaces_around_a_sentence_do_not_hide_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gold.tsv").write_text("score\tsentence1\tsentence2\n1\t c\td \n2\tq\tr\n", encoding="utf-8")
    found = load_gold(str(tmp_path / "gold.tsv"), "test", {})
    assert not found.from_hub
    assert count_overlaps(PoolManifest.load(folder)[1], [found]) == [1]


def test_a_benchmark_read_from_a_folder_is_a_local_file(tmp_path: Path) -> None:
    row = "test\t{}\ta\tb\n"
    (tmp_path / "sickr.tsv").write_text("split\tscore\tsentence1\tsentence2\n" + row.format(1) + row.format(2))
    assert not load_gold("sickr", "test", {}, str(tmp_path)).from_hub
