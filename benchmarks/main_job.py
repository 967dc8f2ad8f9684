"""Runs of the main job, as other benchmarks make them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def paired(options: Sequence[str]) -> dict[str, str]:
    """The main job's keys and values of a command line (`--data.dir FOLDER`)."""
    return {key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}


def command(folder: Path, keys: Mapping[str, Any]) -> list[str]:
    """The main job's command line for a run in this folder."""
    arguments = [str(part) for key, value in keys.items() for part in (f"--{key}", value)]
    return [sys.executable, "-m", "te_trainer", "distil", "--output_dir", str(folder), *arguments]


def results_of(folder: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a run in this folder; one that is finished is not repeated."""
    file = folder / "results.json"
    if not file.exists():
        subprocess.run(command(folder, keys), check=True)
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results
