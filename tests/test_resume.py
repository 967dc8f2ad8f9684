"""A run killed at any moment continues with the same command and ends with the same result."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, process_environment, run_recipe, tiny_arguments

KILLS = 10


def comparable(output: Path) -> dict[str, Any]:
    """All scores of a run, and the bytes of the weights it kept."""
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    for kinds in results["final"].values():
        for entry in kinds.values():
            del entry["path"]
    weights = {
        str(path.relative_to(output)): path.read_bytes() for path in sorted((output / "tiny").rglob("*.safetensors"))
    }
    assert len(weights) == 2
    return {**{key: results[key] for key in ("start", "cycles", "final")}, "weights": weights}


@pytest.mark.slow
def test_ten_kills_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL at ten random moments, in labelling, training, saving or between, and the same scores and weights."""
    whole = run_recipe(*tiny_arguments(tiny, tmp_path / "whole", "--bi_encoder.eval_steps", "2"))
    assert whole.returncode == 0, whole.stderr
    arguments = tiny_arguments(tiny, tmp_path / "killed", "--bi_encoder.eval_steps", "2")
    moments = random.Random(0)
    killed_in = set()
    for kill in range(1, KILLS + 1):
        process = start(arguments)
        assert process.stderr is not None
        wait_for_writes(tmp_path / "killed", moments.randint(1, 20), process)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        lines = process.stderr.read().splitlines()
        assert process.wait() == -9, f"the run ended before kill {kill}: {lines}"
        killed_in.add(lines[-1].split(" | ")[0] if lines else "preparing")
    assert len(killed_in) > 1, killed_in
    last = run_recipe(*arguments)
    assert last.returncode == 0, last.stderr
    assert comparable(tmp_path / "killed") == comparable(tmp_path / "whole")
    left = [path for path in (tmp_path / "killed").rglob(".*") if path.name != ".lock"]
    assert not left, left


def wait_for_writes(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many files or folders were written: a kill then falls into writing, or shortly behind it."""
    before = written(folder)
    while process.poll() is None and len(written(folder) - before) < count:
        time.sleep(0.001)


def written(folder: Path) -> set[tuple[str, int]]:
    found = set()
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(place, name)  # noqa: PTH118 - os.walk bears with files that vanish, Path.rglob does not
            with contextlib.suppress(FileNotFoundError):
                found.add((path, os.stat(path).st_mtime_ns))  # noqa: PTH116
    return found


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "recipes" / "trans_encoder.py"), *arguments],
        cwd=ROOT,
        env=process_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
