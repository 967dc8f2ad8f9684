"""What a GPU computes is what a CPU computes. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import run_launched, tiny_arguments

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def test_a_run_starts_with_the_scores_of_the_cpu(tiny: Path, tmp_path: Path) -> None:
    starts = {}
    for device in ("single_gpu", "cpu"):
        arguments = tiny_arguments(tiny, tmp_path / device)
        finished = run_launched(f"{device}.yaml", "trans_encoder.py", *arguments)
        assert finished.returncode == 0, finished.stderr[-4000:]
        results = json.loads((tmp_path / device / "results.json").read_text(encoding="utf-8"))
        starts[device] = results["start"]["tiny"]["bi-encoder"]["dev"]
        assert len(results["cycles"]) == 2
    assert starts["single_gpu"] == pytest.approx(starts["cpu"], abs=1e-4)
