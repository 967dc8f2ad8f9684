"""Checkpoints that a kill left half written or half removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint, mark_whole, remove_unfinished


def checkpoint(folder: Path, step: int, marked: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "1_Pooling/config.json"):
        (path / name).write_text("{}")
    if marked:
        mark_whole(path)
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
