"""The record of a training, and what the disk has by the time its checkpoints go."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import brief_dev, labelled

from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.tokenization import tokenise
from te_trainer.runs import checkpoint_clock
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.training import Training
from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint


def training_of(tiny: Path, root: Path, progress: RunProgress, precision: str = "float32") -> Training:
    """Of a cross-encoder, in six steps."""
    return Training(
        folder=root / "cross-encoder",
        kind="cross-encoder",
        load=lambda: CrossEncoder.from_pretrained(str(tiny)),
        values={"precision": precision, "max_steps": 6, "per_device_train_batch_size": 8, "eval_steps": 2},
        dev=brief_dev(),
        metric=spearman,
        seed=5,
        progress=progress,
        run_dir=root,
        section="",
    )


@pytest.fixture
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full checkpoints come at each step."""
    for name, value in (("FULL_CHECKPOINT_SECONDS", 0), ("TIMES_WHAT_SAVING_TOOK", 0), ("STEPS_BETWEEN_AGREEMENTS", 1)):
        monkeypatch.setattr(checkpoint_clock, name, value)


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


@pytest.mark.usefixtures("each_step")
def test_what_is_removed_is_not_needed_if_power_fails(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a training with a full checkpoint at each step: whatever takes its place is on the disk by then."""
    training = training_of(tiny, tmp_path, RunProgress(enabled=False))
    on_disk: set[tuple[int, int]] = set()  # a new file may have an old one's inode
    removed = []
    fsync, rmtree = os.fsync, shutil.rmtree

    def count(descriptor: int) -> None:
        fsync(descriptor)
        on_disk.add(version(os.fstat(descriptor)))

    def version(status: os.stat_result) -> tuple[int, int]:
        return status.st_ino, 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns

    def remove(path: Any, *args: Any, **options: Any) -> None:
        needed: list[Path] = []
        if Path(path) == training.checkpoint_dir:
            needed = [tmp_path, training.record, training.folder, *training.folder.rglob("*")]
        elif whole := last_whole_checkpoint(training.checkpoint_dir):
            needed = [Path(whole), *Path(whole).rglob("*")]
        assert [path for path in needed if version(path.stat()) not in on_disk] == []
        removed.append(Path(path).name)
        rmtree(path, *args, **options)

    monkeypatch.setattr(os, "fsync", count)
    monkeypatch.setattr(shutil, "rmtree", remove)
    training.run("train", 1, labelled(36))
    assert {".training-cross-encoder", "checkpoint-3"} <= set(removed)


class Stops(RunProgress):
    """Of a training that is interrupted in its middle."""

    def advance(self, fraction: float) -> None:
        if fraction > 0.6:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("each_step")
@pytest.mark.parametrize(
    ("precision", "lost", "anew"), [("float32", False, False), ("float32", True, False), ("bfloat16", False, True)]
)
def test_a_training_does_not_go_on_with_another_arithmetic(
    tiny: Path, tmp_path: Path, precision: str, lost: bool, anew: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the power failed before the disk had the file that names it, it is taken for the same."""
    with pytest.raises(KeyboardInterrupt):
        training_of(tiny, tmp_path, Stops(enabled=False)).run("train", 1, labelled(36))
    assert last_whole_checkpoint(tmp_path / ".training-cross-encoder")
    if lost:
        (tmp_path / ".training-cross-encoder" / "computation").write_bytes(b"")
    capsys.readouterr()
    with RunProgress(enabled=True) as progress:
        training_of(tiny, tmp_path, progress, precision).run("train", 1, labelled(36))
    said = " ".join("".join(capsys.readouterr()).split())
    assert "train | resumed" in said
    words = (
        "begins anew, because its checkpoint was written with float32 and random batches on a cpu, and it is trained"
    )
    assert (words in said) == anew == ("begins anew" in said)
