"""A lack of memory, which the user can fix, ends in one sentence; output that nobody reads, in none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from te_trainer.runs.exit_status import CLOSED_PIPE, run_command


def lack_on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.12 GiB. GPU 0 has 15 GiB.")


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (lack_on_a_gpu, "error: CUDA out of memory. Tried to allocate 1.12 GiB; for a training, set activation_che"),
        (lambda: torch.empty(1 << 50), "you tried to allocate 4503599627370496 bytes; for a training, set activatio"),
    ],
    ids=["GPU", "CPU"],
)
def test_a_lack_of_memory_names_the_keys_that_help(
    main: Callable[[], object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main) == 1
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1 and shown.endswith("; the command with that change continues\n")


@pytest.mark.parametrize("command", ["--help", "recipes ls", "annotate --help"])
def test_a_command_whose_output_nobody_reads_ends_without_a_word(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "te_trainer", *command.split()]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


def test_a_command_without_an_output_is_done() -> None:
    words = f"{sys.executable} -m te_trainer recipes ls >&-"
    done = subprocess.run(words, shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_pipe_of_anything_else_keeps_its_trace() -> None:
    def main() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_command(main)


def test_another_error_keeps_its_trace() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        run_command(lambda: torch.ones(2).view(3))
