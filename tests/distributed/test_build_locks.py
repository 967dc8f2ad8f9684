"""Locks that killed processes of DeepSpeed have left keep no later run waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from te_trainer.build_locks import OLD, YOUNG, remove_dead_build_locks
from te_trainer.distributed import process_state


def lock(root: Path, extension: str, age: float = 2 * YOUNG) -> Path:
    path = root / extension / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Linux names open files by their own paths
    (tmp_path / "real").mkdir()
    (tmp_path / "named").symlink_to(tmp_path / "real")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "named"))
    return tmp_path / "named"


def test_a_lock_that_nobody_holds_is_removed(root: Path) -> None:
    dead, young = lock(root, "dead"), lock(root, "young", age=0)
    library = root / "dead" / "dead.so"
    library.touch()
    held = lock(root, "held")
    # as torch holds it
    hold = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        remove_dead_build_locks()
        assert not dead.exists() and library.exists()
        assert held.exists() and young.exists()
        holder.kill()
    remove_dead_build_locks()
    assert not held.exists() and young.exists()


def test_the_locks_of_the_users_cache_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dead = lock(tmp_path / "torch_extensions" / "py311_cpu", "deepspeed_shm_comm")
    remove_dead_build_locks()
    assert not dead.exists()


def test_on_several_machines_a_lock_is_named_and_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dead = lock(root, "dead")
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    remove_dead_build_locks()
    assert dead.exists()
    assert str(dead.resolve()) in caplog.text and "delete the file" in caplog.text


def test_in_a_batch_job_only_an_old_lock_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dead, old = lock(root, "dead"), lock(root, "old", age=2 * OLD)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    remove_dead_build_locks()
    assert dead.exists() and not old.exists()
    assert str(dead.resolve()) in caplog.text


def test_locks_are_looked_at_before_deepspeed_starts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate's state starts it."""
    dead, there = lock(root, "dead"), []
    monkeypatch.setattr("te_trainer.distributed.PartialState", lambda **_: there.append(dead.exists()))
    for engine in ("false", "true"):
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", engine)
        process_state()
    assert there == [True, False]
