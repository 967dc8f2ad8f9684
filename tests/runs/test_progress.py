"""A terminal gets its cursor back, however a run ends."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from conftest import process_environment
from rich.console import Console

from te_trainer.runs.progress import RunProgress

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def terminal() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=True, width=100), written


def test_a_display_that_is_not_entered_leaves_the_cursor_alone() -> None:
    console, written = terminal()
    RunProgress(console=console).say("before")
    assert "before" in written.getvalue() and HIDE not in written.getvalue()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_the_cursor_is_shown_again(error: type[BaseException] | None) -> None:
    console, written = terminal()
    progress = RunProgress(console=console)

    def work() -> None:
        with progress:
            progress.begin("train", 1)
            progress.say("inside")
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    said = written.getvalue()
    assert "inside" in said and 0 <= said.find(HIDE) < said.rfind(SHOW) and said.rfind(HIDE) < said.rfind(SHOW)
    progress.say("after")
    assert "after" in written.getvalue() and written.getvalue().rfind(HIDE) < written.getvalue().rfind(SHOW)


def test_the_terminal_is_given_back_before_a_process_is_replaced() -> None:
    console, written = terminal()
    with RunProgress(console=console) as progress:
        progress.begin("train", 1)
        progress.close()
        assert written.getvalue().rfind(HIDE) < written.getvalue().rfind(SHOW)
        progress.advance(0.5)
        progress.end()
        assert written.getvalue().rfind(HIDE) < written.getvalue().rfind(SHOW)


def test_a_process_that_is_asked_to_end_shows_the_cursor() -> None:
    script = (
        "import os, signal, sys\nfrom rich.console import Console\nfrom te_trainer.runs.progress import RunProgress\n"
        "with RunProgress(console=Console(file=sys.stderr, force_terminal=True)) as progress:\n"
        "    progress.begin('train', 1)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], env=process_environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == -15, ended.stderr
    assert 0 <= ended.stderr.rfind(HIDE) < ended.stderr.rfind(SHOW)


@pytest.mark.parametrize("earlier", [0.0, 900.0])
def test_the_time_left_is_said_once_a_part_of_the_work_is_done(earlier: float) -> None:
    written = io.StringIO()
    progress = RunProgress(console=Console(file=written, width=200))
    progress.total = earlier + 100
    if earlier:
        progress.skip(earlier)
    for stage, weight in (("gather", 0.01), ("embed", 1.5), ("label", 1.0)):
        progress.begin(stage, weight)
        progress.end()
    said = [line for line in written.getvalue().splitlines() if "| done |" in line]
    assert [" left" in line for line in said] == [False, False, True]
