"""Tokens of a training are those of its batches, through a stop in its middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import labelled

from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.tokenization import tokenise
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.token_count import FILE
from te_trainer.runs.training import Training

KINDS: dict[str, Any] = {"bi-encoder": BiEncoder, "cross-encoder": CrossEncoder}


class Stopped(Exception):
    pass


class StopsAt(RunProgress):
    """A display that ends the training when it has come so far."""

    share_to_stop_at: float = 2.0

    def advance(self, share: float) -> None:
        if share >= self.share_to_stop_at:
            raise Stopped


def stage(folder: Path, stop: float = 2.0) -> Training:
    """Two epochs of five steps; a checkpoint every second step."""
    progress = StopsAt(enabled=False)
    progress.share_to_stop_at = stop
    return Training(
        folder=folder,
        values={
            "precision": "float32",
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "save_strategy": "steps",
            "save_steps": 2,
        },
        dev=None,
        metric=spearman,
        seed=5,
        progress=progress,
        run_name="",
        group="",
        log_folder=folder.parent / "logs",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_changes_no_count(kind: Any, tiny: Path, tmp_path: Path) -> None:
    pairs = labelled(36)

    def run(training: Training) -> None:
        training.run(kind, lambda: KINDS[kind].from_pretrained(str(tiny)), pairs)

    def tokens(training: Training) -> dict[str, int]:
        return json.loads(training.record.read_text(encoding="utf-8"))["tokens"]

    run(stage(tmp_path / "whole"))
    with pytest.raises(Stopped):
        run(stage(tmp_path / "stopped", stop=0.7))
    assert list(stage(tmp_path / "stopped").workshop.glob(f"checkpoint-*/{FILE}"))
    run(stage(tmp_path / "stopped"))
    found = tokens(stage(tmp_path / "whole"))
    assert tokens(stage(tmp_path / "stopped")) == found
    encoder = KINDS[kind].from_pretrained(str(tiny))
    one, two = list(pairs["sentence1"]), list(pairs["sentence2"])
    sides = [(one,), (two,)] if kind == "bi-encoder" else [(one, two), (two, one)]
    read = [ids for side in sides for ids in tokenise(encoder.tokenizer, encoder.max_length, *side)["input_ids"]]
    assert found["real"] == 2 * sum(map(len, read))
    assert found["padding"] > 0
