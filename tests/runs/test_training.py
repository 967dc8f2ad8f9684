"""The record of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import labelled

from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.tokenization import tokenise
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.training import Training


@pytest.mark.parametrize("encoder_class", [BiEncoder, CrossEncoder])
def test_tokens_are_recorded_where_transformers_counts_them(encoder_class: Any, tiny: Path, tmp_path: Path) -> None:
    encoder, pairs = encoder_class.from_pretrained(str(tiny)), labelled(36)
    training = Training(
        folder=tmp_path / "encoder",
        kind=encoder.kind,
        load=lambda: encoder,
        values={
            "precision": "float32",
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "include_num_input_tokens_seen": "non_padding",
        },
        dev=None,
        metric=spearman,
        seed=5,
        progress=RunProgress(enabled=False),
        run_dir=tmp_path,
        section="",
    )
    training.run("train", 1, pairs)
    one, two = list(pairs["sentence1"]), list(pairs["sentence2"])
    sides = [(one,), (two,)] if encoder.kind == "bi-encoder" else [(one, two), (two, one)]
    tokens = sum(int(tokenise(encoder.tokenizer, encoder.max_length, *side).lengths.sum()) for side in sides)
    record = training.read_record()
    assert record["num_input_tokens_seen"] == 2 * tokens
    assert record["steps"] == (10 if encoder.kind == "bi-encoder" else 18)
