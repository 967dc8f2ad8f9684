"""A run tokenises its pool once for each kind of encoder, whatever the labels of a cycle are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_arguments

from te_trainer.cli import start
from te_trainer.trainers import BiEncoderTrainer, cross_encoder

pytestmark = pytest.mark.slow


def test_the_second_cycle_tokenises_no_pair_again(
    tiny: Path, few_gold: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dev set lies in memory alone, and is tokenised by each training."""
    counts: Counter[tuple[str, int]] = Counter()
    encode, tokenise = BiEncoderTrainer._encode, cross_encoder.tokenise

    def count_bi(trainer: Any, one: list[str], two: list[str]) -> Any:
        counts["bi-encoder", len(one)] += 1
        return encode(trainer, one, two)

    def count_cross(tokenizer: Any, max_length: int, one: list[str], two: list[str]) -> Any:
        counts["cross-encoder", len(one)] += 1
        return tokenise(tokenizer, max_length, one, two)

    monkeypatch.setattr(BiEncoderTrainer, "_encode", count_bi)
    monkeypatch.setattr(cross_encoder, "tokenise", count_cross)
    start("distil", tiny_arguments(tiny, tmp_path / "run", *few_gold, "--data.max_pairs", "32"))
    pool, dev = 32, 24
    assert counts == {
        ("cross-encoder", pool): 2,  # both orders
        ("bi-encoder", pool): 1,
        ("cross-encoder", dev): 2,
        ("bi-encoder", dev): 2,
    }
    assert not list(tmp_path.rglob("cache-*"))
