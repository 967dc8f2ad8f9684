"""The checks for a machine with a GPU, as far as a CPU can try them: they follow the modules that they call."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, process_environment

FOLDER = ROOT / "benchmarks" / "gpu"


def test_every_check_has_a_function_and_a_line_in_the_documentation() -> None:
    tables = re.findall(r'"(\w+)": \(\d+, \d+\)', (FOLDER / "run_checks.py").read_text(encoding="utf-8"))
    functions = [
        name
        for module in ("functional", "timings")
        for name in re.findall(r"^def check_(\w+)\(folder", (FOLDER / f"{module}.py").read_text(encoding="utf-8"), re.M)
    ]
    assert sorted(tables) == sorted(functions)
    rows = [line for line in (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert set(tables) <= set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))


def test_the_papers_run_is_extrapolated_by_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    versus = importlib.import_module("versus_sentence_transformers")
    passes = {"label_bi": 1, "train_cross": 2, "label_cross": 1, "train_bi": 5}

    def run_of(pairs: int) -> dict[str, Any]:
        # a stage takes 10 s, and 0.01 s for each pass of a pair
        return {"seconds": {stage: 10 + 0.01 * pairs * count for stage, count in passes.items()}}

    report = {
        "arguments": {"cross_epochs": "2", "bi_epochs": "5.0"},
        **{"pairs": 400, "quarter_pairs": 100},
        **{part: {"x": [run_of(pairs)] * 3} for part, pairs in (("measured", 400), ("quarter", 100))},
    }
    found = versus.extrapolated(report, "x")
    assert found["fixed"] == pytest.approx(4 * 10)
    # labels twice, one epoch and ten
    assert found["seconds"] == pytest.approx(3 * (4 * 10 + 0.01 * 37_000 * (1 + 1 + 1 + 10)))


def run_checks(tmp_path: Path, only: str, **more: str) -> list[str]:
    """The lines of the summary of some checks on a CPU."""
    folders = {name: str(tmp_path / name.lower()) for name in ("OUT", "WORK", "KIT", "SITE")}
    finished = subprocess.run(
        [sys.executable, str(FOLDER / "run_checks.py")],
        env={**os.environ, **process_environment(), **folders, "MODE": "cpu", "ONLY": only, "BUDGET": "300", **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_checks_run_on_a_cpu_and_a_wrong_version_is_named(tmp_path: Path) -> None:
    metadata = tmp_path / "old" / "pyarrow-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 1.0\n", encoding="utf-8")
    old = os.pathsep.join([str(metadata.parents[1]), process_environment()["PYTHONPATH"]])
    lines = run_checks(tmp_path, "env parity", PYTHONPATH=old)
    # and no version that is as it should be
    wrong = r"other versions than [\w ]+: pyarrow\S+ \(found: 1\.0\)(, pyarrow\S+ \(found: 1\.0\))*"
    assert re.match(rf"FAIL env +[\d.]+ s  {wrong} \| \d+ cores", lines[1]), lines
    assert re.match(r"PASS parity +[\d.]+ s  BiEncoder: .* \| CrossEncoder: ", lines[2]), lines
    assert lines[3].startswith("1 passed, 1 failed, 0 timed out")
