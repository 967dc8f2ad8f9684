"""A run killed at any moment continues with the same command and ends with the same result."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import brief_gold, results_of, tiny_arguments
from forked import Forked, run_forked

JOB = "trans_encoder.py"
KILLS = 5


def comparable(output: Path) -> dict[str, Any]:
    """All scores of a run, and the bytes of the weights it kept."""
    results = results_of(output)
    names = [name for name in results["final"] if name != "ensemble"]
    weights = {}
    for name in names:
        for kind, entry in results["final"][name].items():
            del entry["path"]
            weights[name, kind] = (output / name / kind / "model.safetensors").read_bytes()
    assert len(weights) == 2 * len(names)
    return {**{key: results[key] for key in ("start", "cycles", "final")}, "weights": weights}


@pytest.mark.slow
def test_random_kills_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """SIGKILL at five random moments, in labelling, training, saving or between, and the same scores and weights."""
    options = ["--bi_encoder.eval_steps", "2", *brief_gold(tmp_path)]
    whole = run_forked(JOB, tiny_arguments(tiny, tmp_path / "whole", *options))
    assert whole.returncode == 0, whole.stderr
    arguments = tiny_arguments(tiny, tmp_path / "killed", *options)
    moments = random.Random(0)
    killed_in = set()
    for kill in range(1, KILLS + 1):
        process = Forked(JOB, arguments, clock=0)
        wait_for_writes(tmp_path / "killed", moments.randint(1, 40), process)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        status, lines = process.wait(), process.said().splitlines()
        assert status == -9, f"the run ended before kill {kill}: {lines}"
        killed_in.add(lines[-1].split(" | ")[0] if lines else "preparing")
    assert len(killed_in) > 1, killed_in
    last = run_forked(JOB, arguments)
    assert last.returncode == 0, last.stderr
    assert comparable(tmp_path / "killed") == comparable(tmp_path / "whole")
    left = [path for path in (tmp_path / "killed").rglob(".*") if path.name != ".lock"]
    assert not left, left


@pytest.mark.slow
def test_kills_in_a_mutual_run_change_nothing(tiny: Path, letters: Path, tmp_path: Path) -> None:
    """SIGKILL while the first PLM's student is ready and the second one's is in training, in both halves of a cycle,
    and before the last labels, which the agreement that chooses needs, are given."""
    models = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {letters}, name: two}}]"
    options = ["--models", models, "--distillation.selection", "agreement", "--data.max_pairs", "64"]
    options += brief_gold(tmp_path)
    whole = run_forked(JOB, tiny_arguments(tiny, tmp_path / "whole", *options))
    assert whole.returncode == 0, whole.stderr
    check_unsupervised(tmp_path / "whole")
    killed = tmp_path / "killed"
    for moment, clock in (
        ("cycle-1/two/.training-cross-encoder/checkpoint-*/checkpoint-is-whole", 0),
        ("cycle-1/two/.training-bi-encoder/checkpoint-*/checkpoint-is-whole", 0),
        ("cycle-2/two/bi-encoder.json", None),
    ):
        process = Forked(JOB, tiny_arguments(tiny, killed, *options), clock=clock)
        process.kill_at(killed, moment)
        assert (killed / "cycle-1" / "one" / "cross-encoder").is_dir()
        assert not (killed / "results.json").exists()
    last = run_forked(JOB, tiny_arguments(tiny, killed, *options))
    assert last.returncode == 0, last.stderr
    assert comparable(killed) == comparable(tmp_path / "whole")
    assert results_of(killed)["agreement"] == results_of(tmp_path / "whole")["agreement"]
    left = [path for path in killed.rglob(".*") if path.name != ".lock"]
    assert not left, left


def check_unsupervised(output: Path) -> None:
    """It has a dev set, which chose nothing, as the report says."""
    records = list(output.glob("cycle-*/*/*.training.json"))
    assert len(records) == 8
    assert not any(json.loads(record.read_text(encoding="utf-8"))["dev_curve"] for record in records)
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "unsupervised" in report and "Gold scores of the dev set are reported only." in report
    assert "Gold scores of the dev set chose checkpoints and cycles." not in report
    assert "dev" in results_of(output)["final"]["one"]["bi-encoder"]


def wait_for_writes(folder: Path, count: int, process: Forked) -> None:
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
