"""Checkpoints that a kill left half written or half removed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from te_trainer.trainers.checkpoint_mark import (
    WEIGHTS_MARK,
    WHOLE_MARK,
    last_whole_checkpoint,
    mark_whole,
    remove_others,
    remove_unfinished,
)


def checkpoint(folder: Path, step: int, marked: bool = True, mark: str = WHOLE_MARK) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "1_Pooling/config.json"):
        (path / name).write_text("{}")
    if marked:
        mark_whole(path, mark)
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_the_one_before(tmp_path: Path) -> None:
    kept, going = checkpoint(tmp_path, 6), checkpoint(tmp_path, 8)
    checkpoint(tmp_path, 12, marked=False)
    (going / "1_Pooling" / "config.json").unlink()
    remove_unfinished(tmp_path)
    assert left(tmp_path) == ["checkpoint-6"]
    assert last_whole_checkpoint(tmp_path) == str(kept)


@pytest.mark.parametrize("steps", [(6, 8), (8, 100)])
def test_damage_of_the_newest_checkpoint_is_left_to_be_named(steps: tuple[int, int], tmp_path: Path) -> None:
    for step in steps:
        (checkpoint(tmp_path, step) / "model.safetensors").unlink()
    remove_unfinished(tmp_path)
    assert left(tmp_path) == sorted(f"checkpoint-{step}" for step in steps)
    remove_unfinished(tmp_path / "none")


@pytest.mark.parametrize(("whole", "kept"), [(8, ["checkpoint-6", "checkpoint-8"]), (None, [])])
def test_what_lies_behind_the_last_one_to_resume_from_goes(whole: int | None, kept: list[str], tmp_path: Path) -> None:
    for step in (6, 10, 100):
        checkpoint(tmp_path, step, mark=WEIGHTS_MARK)
    last = whole and str(checkpoint(tmp_path, whole))
    assert last_whole_checkpoint(tmp_path) == last
    remove_unfinished(tmp_path)
    assert left(tmp_path) == kept


@pytest.mark.parametrize("mark", [WHOLE_MARK, WEIGHTS_MARK])
def test_a_kill_while_others_are_removed_leaves_none_with_a_mark(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    kept, going = checkpoint(tmp_path, 6), checkpoint(tmp_path, 4, mark=mark)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", kill)
        remove_others(tmp_path, str(kept), None)
    assert (going / "model.safetensors").exists()
    remove_unfinished(tmp_path)
    assert left(tmp_path) == ["checkpoint-6"]
