"""What a run says while it runs: one display on a terminal, plain lines elsewhere.

The display counts work in passes over the pool: labelling a pair is one pass, training on it three (forward and
backward), so that the share done and the time left mean the same in every stage.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from te_trainer.escaping import printable

LINE_EVERY = 30.0  # seconds between two lines of a stage where there is no terminal


class RunProgress:
    """Progress of a whole run. Its display is there inside of a `with` block; lines are said before and after it too.

    Args:
        enabled: False on every rank but the first: nothing is said then.

    Attributes:
        total: work of the whole run, in passes over the pool.
    """

    def __init__(self, enabled: bool = True, console: Console | None = None) -> None:
        self.total = 1.0
        self.enabled = enabled
        self.console = console or Console(file=sys.stderr, soft_wrap=True)
        self.finished = 0.0  # passes of the stages that are done
        self.worked = 0.0  # passes done by this process, of which it knows how long they took
        self.began: float | None = None  # when the first stage of this process began
        self.stage = ""
        self.weight = 0.0
        self.share = 0.0
        self.resumed_at = 0.0
        self.dev = ""
        self.last_line = 0.0
        self.bar: Progress | None = None
        self.on_terminate: Any = None

    def __enter__(self) -> RunProgress:
        if self.enabled and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[dev]}"),
                TimeElapsedColumn(),
                # the library's own estimate would take stages that an earlier process did for fast ones
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            self.task = self.bar.add_task("starting", total=None, dev="", left="")
            if threading.current_thread() is threading.main_thread():
                # a launcher ends the other ranks by this signal when one has failed
                self.on_terminate = signal.signal(signal.SIGTERM, self._terminate)
            # hides the cursor
            self.bar.start()
            self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back; lines are still said."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if self.on_terminate is not None:
            signal.signal(signal.SIGTERM, self.on_terminate)
            self.on_terminate = None

    def begin(self, stage: str, weight: float, share: float = 0.0) -> None:
        """A stage begins; `share` of it was done before a resume."""
        self.stage, self.weight, self.share, self.resumed_at = stage, weight, share, share
        self.last_line = time.monotonic()
        self.began = self.began or self.last_line
        if self.bar is None:
            self._line("resumed" if share else "begins")
        self._show()

    def advance(self, share: float) -> None:
        """`share` of the current stage is done."""
        self.share = share
        self._show()
        if self.bar is None and time.monotonic() - self.last_line > LINE_EVERY:
            self._line(f"{share:.0%}")

    def end(self) -> None:
        """The current stage is done."""
        self.worked += self.weight * (1 - self.resumed_at)
        self.finished += self.weight
        self.weight = self.share = self.resumed_at = 0.0
        if self.bar is None:
            self._line("done")
        self._show()

    def skip(self, weight: float) -> None:
        """A stage was done by an earlier process."""
        self.finished += weight
        self._show()

    def score(self, text: str) -> None:
        """The newest dev score."""
        self.dev = text
        self._show()

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.enabled:
            (self.bar.console if self.bar else self.console).print(
                printable(line), highlight=False, markup=False, emoji=False
            )

    @property
    def done(self) -> float:
        """Share of the whole run that is done, 0 to 1."""
        return min(1.0, (self.finished + self.weight * self.share) / self.total)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at this process's speed so far; None before it can be told."""
        worked = self.worked + self.weight * (self.share - self.resumed_at)
        if worked <= 0 or self.began is None:
            return None
        return (time.monotonic() - self.began) * self.total * (1 - self.done) / worked

    def _terminate(self, number: int, frame: object) -> None:
        # not through the display, whose lock the interrupted code may hold
        self.console.file.write("\x1b[?25h\n")
        self.console.file.flush()
        signal.signal(number, self.on_terminate)
        os.kill(os.getpid(), number)

    def _show(self) -> None:
        if self.bar is not None:
            self.bar.update(
                self.task,
                total=self.total,
                completed=self.done * self.total,
                description=printable(self.stage) or "starting",
                dev=self.dev,
                left=self._left(),
            )

    def _line(self, what: str) -> None:
        self.last_line = time.monotonic()
        parts = [self.stage, what, f"run {self.done:.0%}", self._left(), self.dev]
        self.say(" | ".join(part for part in parts if part))

    def _left(self) -> str:
        left = self.seconds_left
        return "" if left is None else f"about {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
