"""Recipes as processes of their own, without the seconds in which each would import what all of them need.

A server that has imported it forks a process for each run: a real one, with files, signals and an end of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORKING = multiprocessing.get_context("forkserver")
# Names only: importing them here would be for nothing. One that fails costs time, and its run says why.
FORKING.set_forkserver_preload(
    [
        "te_trainer.hub",
        "te_trainer.distillation.stages",
        "te_trainer.contrastive.stage",
        "matplotlib.pyplot",
        "deepspeed",
    ]
)


class Forked:
    """A recipe's process, with what of `subprocess.Popen` tests need."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.process = FORKING.Process(target=_run, args=(ROOT / "recipes" / name, list(arguments), self.folder.name))
        self.process.start()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def wait(self, timeout: float = 600) -> int:
        """The exit status.

        Raises:
            TimeoutExpired: it still runs.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.process.name, timeout)
        return self.process.exitcode

    def said(self, stream: str = "stderr") -> str:
        """What it has written to `stdout` or `stderr`."""
        return Path(self.folder.name, stream).read_text(encoding="utf-8")


def run_forked(name: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a recipe to its end."""
    process = Forked(name, arguments)
    status = process.wait()
    return subprocess.CompletedProcess([name, *arguments], status, process.said("stdout"), process.said())


def _run(recipe: Path, arguments: list[str], folder: str) -> None:
    for number, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, stream), os.O_WRONLY | os.O_CREAT), number)
    os.chdir(ROOT)
    sys.argv = [str(recipe), *arguments]
    runpy.run_path(str(recipe), run_name="__main__")
