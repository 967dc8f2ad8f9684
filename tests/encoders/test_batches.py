"""Groups of similar length: every item once, and what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sample_pairs

from te_trainer.encoders import BiEncoder
from te_trainer.encoders.batches import split_by_length


def padded(groups: list[np.ndarray], lengths: np.ndarray) -> int:
    return sum(len(group) * int(lengths[group].max()) for group in groups)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost", [0, 20, 200, 10**6])
def test_splitting_loses_nothing_and_pays(seed: int, cost: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 100)
    groups = list(split_by_length(lengths, cost))
    assert sorted(np.concatenate(groups).tolist()) == list(range(100))
    whole = 100 * int(lengths.max())
    assert padded(groups, lengths) + cost * (len(groups) - 1) <= whole
    if cost == 0:
        assert padded(groups, lengths) == lengths.sum()
    if cost == 10**6:
        assert len(groups) == 1


def test_equal_lengths_stay_together() -> None:
    assert [len(group) for group in split_by_length(np.full(30, 7), 0)] == [30]


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_vectors_are_those_of_the_padded_batch(tiny: Path, pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("te_trainer.encoders.bi_encoder.PASS", 3)
    encoder = BiEncoder.from_pretrained(str(tiny), pooling=pooling)  # type: ignore[arg-type]
    encoder.model.eval()
    texts = [text for pair in sample_pairs(20) for text in pair]
    batch = encoder.tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    passes: list[torch.Size] = []
    encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    grouped = encoder.embed(batch["input_ids"], batch["attention_mask"])
    # a model as an engine wraps it goes through in one pass
    whole = encoder.embed(batch["input_ids"], batch["attention_mask"], torch.nn.Sequential(encoder.model)[0].__call__)  # type: ignore[arg-type]
    assert len(passes) > 2
    assert passes[-1] == batch["input_ids"].shape
    torch.testing.assert_close(grouped, whole, atol=1e-5, rtol=1e-5)
