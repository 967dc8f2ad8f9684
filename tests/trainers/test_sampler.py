"""Batches of similar length, in random order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLD_FOLDER, MINILM
from datasets import Dataset
from test_trainer_evaluation import make
from transformers import set_seed

from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.trainers import (
    BiEncoderTrainer,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from te_trainer.trainers.sampler import MicroBatches, grouped_by_length, shuffled, whole_batches


def distinct_lengths(count: int) -> np.ndarray:
    return np.random.default_rng(7).permutation(count)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 1003])
@pytest.mark.parametrize("batches_per_stretch", [1, 3, 100])
def test_every_example_comes_once_an_epoch(count: int, batches_per_stretch: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 20, count)
    assert sorted(grouped_by_length(lengths, 8, 0, 0, batches_per_stretch)) == list(range(count))


def test_each_batch_holds_neighbours_in_length_and_the_ragged_rest_is_last() -> None:
    """In one stretch of 103 distinct lengths, batches of 10 are the tenths of the sorted lengths, and 3 are left."""
    lengths = distinct_lengths(103)
    order = grouped_by_length(lengths, 10, 0, 0)
    batches = [sorted(lengths[order[start : start + 10]].tolist()) for start in range(0, 103, 10)]
    assert batches[-1] == [100, 101, 102]
    assert sorted(batches[:-1]) == [list(range(start, start + 10)) for start in range(0, 100, 10)]


def test_batches_come_in_random_order() -> None:
    lengths = distinct_lengths(4000)
    order = grouped_by_length(lengths, 10, 0, 0)
    means = lengths[order].reshape(-1, 10).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(400))[0, 1]) < 0.2
    # The stretches of 1000 do not stay together either.
    assert abs(np.corrcoef(means[:100], np.arange(100))[0, 1]) < 0.3
    assert 0.4 < np.mean(np.diff(means) > 0) < 0.6


def test_batches_hold_other_examples_in_every_epoch() -> None:
    """Sorting all examples at once would put the same ones together for ever."""
    lengths = distinct_lengths(4000)
    together = []
    for epoch in (0, 1):
        order = grouped_by_length(lengths, 10, 0, epoch)
        together.append({tuple(sorted(batch)) for batch in order.reshape(-1, 10).tolist()})
    assert len(together[0] & together[1]) < 20


@pytest.mark.parametrize(
    "order",
    [
        partial(shuffled, 203),
        partial(grouped_by_length, distinct_lengths(203), 8),
        partial(whole_batches, 203, 8),
    ],
    ids=["shuffled", "by length", "whole batches"],
)
def test_an_order_depends_on_seed_and_epoch_alone(order: Callable[[int, int], np.ndarray]) -> None:
    orders = set()
    for seed in range(4):
        for epoch in range(4):
            set_seed(99)
            first = order(seed, epoch)
            np.testing.assert_array_equal(order(seed, epoch), first)
            # views of a sentence have another index in each epoch
            is_of_views = {*(first // 203)} == {epoch}
            assert is_of_views or first.max() < 203
            rows = tuple(first % 203)
            assert len(set(rows)) == len(rows) == (200 if order.func is whole_batches else 203)  # type: ignore[attr-defined]
            orders.add(rows)
    assert len(orders) == 16


# ------------------------------------------------------------ padding on real pairs


@pytest.fixture(scope="module")
def stsb() -> Dataset:
    """All pairs of STS-B."""
    lines = (GOLD_FOLDER / "stsb.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    assert len(rows) > 8000
    return Dataset.from_dict(
        {"sentence1": [row[2] for row in rows], "sentence2": [row[3] for row in rows], "label": [0.5] * len(rows)}
    )


def real_tokens(trainer: BiEncoderTrainer | CrossEncoderTrainer) -> float:
    """Share of tokens in an epoch of the trainer's own batches that are no padding."""
    real = computed = rows = 0
    for batch in trainer.get_train_dataloader():
        real += int(batch["attention_mask"].sum())
        computed += batch["attention_mask"].numel()
        rows += len(batch["labels"])
    assert trainer.train_dataset is not None
    assert rows == len(trainer.train_dataset)
    return real / computed


@pytest.mark.skipif(not GOLD_FOLDER.is_dir(), reason="no folder with gold sets")
@pytest.mark.parametrize(("kind", "batch_size"), [("bi-encoder", 128), ("cross-encoder", 32)])
def test_nine_tenths_of_what_is_computed_are_real_tokens(
    kind: str, batch_size: int, stsb: Dataset, tmp_path: Path
) -> None:
    settings = {"per_device_train_batch_size": batch_size, "train_sampling_strategy": "group_by_length"}
    encoder = BiEncoder.from_pretrained(MINILM, max_length=32) if kind == "bi-encoder" else MINILM
    assert real_tokens(make(kind, encoder, tmp_path, stsb, **settings)) >= 0.9


# ------------------------------------------------------------ which order


@pytest.mark.parametrize(
    ("strategy", "max_length", "grouped"),
    [("auto", 64, False), ("auto", 130, True), ("random", 130, False), ("group_by_length", 64, True)],
)
def test_batches_are_grouped_where_padding_is_computed(
    strategy: str, max_length: int, grouped: bool, tiny: Path, tmp_path: Path
) -> None:
    pairs = [("a cat" + " sat" * (row % 20), "a dog") for row in range(200)]
    columns = dict(zip(("sentence1", "sentence2"), map(list, zip(*pairs, strict=True)), strict=True))
    args = CrossEncoderTrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=10, train_sampling_strategy=strategy
    )
    encoder = CrossEncoder.from_pretrained(str(tiny), max_length=max_length)
    trainer = CrossEncoderTrainer(encoder, args, Dataset.from_dict({**columns, "label": [0.5] * 200}))
    batches = list(trainer.get_train_dataloader())
    assert sum(len(batch["labels"]) for batch in batches) == 400
    spread = np.mean([float(batch["attention_mask"].sum(1).float().std()) for batch in batches])
    assert bool(spread < 1) is grouped


# ------------------------------------------------------------ micro-batches


def global_batches(total: int, size: int, accumulation: int, ranks: int) -> tuple[list[list[int]], list[int]]:
    """The examples of every optimiser step over all ranks, and how many micro-batches each rank has."""
    lengths = np.random.default_rng(0).integers(3, 60, total)
    batches = [
        MicroBatches(
            lambda epoch: grouped_by_length(lengths, size * accumulation * ranks, 5, 0),
            total,
            size,
            accumulation,
            rank,
            ranks,
        )
        for rank in range(ranks)
    ]
    shares = list(map(list, batches))
    for share in shares:
        assert all(0 < len(batch) <= size for batch in share)
    assert {len(share) for share in shares} == {len(batches[0])}
    steps = range(0, len(shares[0]), accumulation)
    together = [[i for share in shares for batch in share[step : step + accumulation] for i in batch] for step in steps]
    return together, [len(share) for share in shares]


@pytest.mark.parametrize(("size", "accumulation", "ranks"), [(4, 1, 2), (2, 4, 1), (2, 2, 2), (1, 2, 4)])
@pytest.mark.parametrize("total", [64, 67, 70])
def test_global_batches_do_not_depend_on_ranks_and_accumulation(
    total: int, size: int, accumulation: int, ranks: int
) -> None:
    whole, _ = global_batches(total, 8, 1, 1)
    divided, _ = global_batches(total, size, accumulation, ranks)
    assert [sorted(batch) for batch in divided[:8]] == [sorted(batch) for batch in whole[:8]]
    left_out = sum(map(len, whole)) - sum(map(len, divided))
    assert 0 <= left_out < ranks
    if len(divided) > 8:
        assert set(divided[8]) <= set(whole[8])


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_a_micro_batch_holds_the_same_examples_on_any_number_of_ranks(accumulation: int) -> None:
    """Those of it are each other's negatives."""
    order = shuffled(56, 5, 0)
    found = []
    for ranks in (1, 2, 4):
        shares = [MicroBatches(lambda epoch: order, 56, 8 // ranks, accumulation, rank, ranks) for rank in range(ranks)]
        found.append([[i for batch in batches for i in batch] for batches in zip(*shares, strict=True)])
    assert found[0] == found[1] == found[2] == order.reshape(7, 8).tolist()


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_no_rank_waits_for_a_micro_batch_that_never_comes(ranks: int, size: int, accumulation: int) -> None:
    for total in range(1, 40):
        steps, _ = global_batches(total, size, accumulation, ranks)
        seen = [i for step in steps for i in step]
        assert len(seen) == len(set(seen)) > total - max(2, ranks)


def test_drop_last_leaves_the_smaller_batch_out() -> None:
    assert [len(batch) for batch in MicroBatches(lambda epoch: np.arange(21), 21, 4, 2, drop_last=True)] == [4, 4, 4, 4]
