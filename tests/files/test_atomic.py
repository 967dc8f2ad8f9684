"""Files and folders appear whole, or not at all; what others have there stays."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from conftest import labelled

from te_trainer.files.atomic import PARTIAL, atomic_file, atomic_folder, write_text
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.runs.folder import lock_run_dir
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True), (errno.ENOSPC, True)])
def test_a_disk_that_cannot_be_waited_for_is_no_failure(
    number: int, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such disks cannot be had here, so the system call answers as they do."""

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    expected = pytest.raises(OSError, match=os.strerror(number)) if fails else contextlib.nullcontext()
    with expected, atomic_folder(tmp_path / "new") as folder:
        (folder / "weights").write_text("1")
    assert (tmp_path / "new" / "weights").exists() == (not fails)


@pytest.mark.parametrize("can", [True, False])
def test_on_macos_the_drive_is_asked_to_keep_it_too(can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def control(descriptor: int, command: int) -> None:
        assert os.fstat(descriptor) and command == 51
        if not can:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        asked.append(descriptor)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append(-descriptor))
    with atomic_folder(tmp_path / "new") as folder:
        (folder / "weights").write_text("1")
    assert len(asked) == 3 and all((number > 0) == can for number in asked)  # the file, the folder, the one above


class Stopped(BaseException):
    """As an interruption."""


def test_a_run_leaves_alone_what_a_run_inside_of_it_writes(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "run.yaml", "config: {}\n")
    inside = tmp_path / "a" / "in0" / f"{PARTIAL}pool" / "pairs.arrow"
    beside = tmp_path / "a" / f"{PARTIAL}scores.tsv.scratch" / "pairs.arrow"
    for path in (inside, beside):
        write_text(path, "half")
    with lock_run_dir(tmp_path / "a"):
        write_text(tmp_path / "a" / "results.json", "{}")
    assert inside.read_text() == beside.read_text() == "half"


@pytest.mark.parametrize("to", ["folder", "file", "nothing"])
def test_links_of_our_names_are_not_followed(tmp_path: Path, to: str) -> None:
    target = tmp_path / "target"
    if to == "folder":
        write_text(target / "mine", "mine")
    elif to == "file":
        target.write_text("mine")
    root = tmp_path / "a"
    write_text(root / "run.yaml", "config: {}\n")
    names = ["pool", "results.json", "table", "x", "scratch"]
    for name in names:
        (root / f"{PARTIAL}{name}").symlink_to(target)
    with lock_run_dir(root):
        with atomic_folder(root / "pool") as folder:
            write_text(folder / "pool.json", "ours")
        write_text(root / "results.json", "ours")
        with atomic_file(root / "table") as file:
            file.write_text("ours")
        with scratch_folder(root / f"{PARTIAL}scratch") as folder:
            write_text(folder / "vectors", "ours")
    assert (root / "results.json").read_text() == (root / "table").read_text() == "ours"
    assert not (root / "results.json").is_symlink() and not (root / "pool").is_symlink()
    assert (root / f"{PARTIAL}x").is_symlink(), "nobody writes a file of this name"
    if to == "nothing":
        assert not target.exists()
    else:
        assert (target / "mine" if to == "folder" else target).read_text() == "mine"
        assert to == "file" or [path.name for path in target.iterdir()] == ["mine"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "pool" / "old", "old")
    write_text(tmp_path / "file", "old")
    with pytest.raises(Stopped), atomic_folder(tmp_path / "pool") as folder:
        write_text(folder / "new", "new")
        raise Stopped
    with pytest.raises(Stopped), atomic_file(tmp_path / "file") as file:
        file.write_text("new")
        raise Stopped
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "old", "pool"]


def test_a_killed_predecessors_leavings_go_when_the_same_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / f"{PARTIAL}pool" / "half", "half")
    with atomic_folder(tmp_path / "pool") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_weights_have_the_mode_of_the_files_beside_them(tiny: Path, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        bi = BiEncoder.from_pretrained(str(tiny))
        bi.save_pretrained(tmp_path / "bi")
        CrossEncoder.from_pretrained(str(tiny)).save_pretrained(tmp_path / "cross")
        pairs = labelled(8)
        arguments = BiEncoderTrainingArguments(output_dir=str(tmp_path / "run"), max_steps=1, save_strategy="steps")
        trainer = BiEncoderTrainer(
            bi, arguments, pairs.remove_columns("label").add_column("label", score_pairs(bi, pairs))
        )
        trainer.train()
        trainer.save_model(str(tmp_path / "trained"))
    finally:
        os.umask(before)
    weights = sorted(tmp_path.rglob("*.safetensors"))
    assert {path.parent.name for path in weights} == {"bi", "cross", "trained", "checkpoint-1"}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path
    assert torch.isfinite(bi.model.get_input_embeddings().weight).all()
