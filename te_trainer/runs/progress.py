"""What a run says while it runs: one display on a terminal, plain lines elsewhere.

The display counts work in passes over the pool: labelling a pair is one pass, training on it four (forward and
backward), so that the fraction done and the time left mean the same in every stage.
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
# Part of this process's work that must be done before it says the time left: models that are loaded and indices that
# are built before the first passes would make the estimate far too long.
LEAST_DONE = 0.02


class RunProgress:
    """Progress of a whole run, of `total` passes; only the first rank's is enabled.

    The display is shown inside of a `with` block; lines are said before and after it too.
    """

    def __init__(self, enabled: bool = True, console: Console | None = None) -> None:
        self.total = 1.0
        self.enabled = enabled
        self.stage = ""
        self._console = console or Console(file=sys.stderr, soft_wrap=True)
        self._finished = 0.0  # passes of the stages that are done
        self._earlier = 0.0  # passes that earlier processes did; nobody knows how long they took
        self._weight = 0.0  # passes of the current stage
        self._fraction = 0.0  # of the current stage that is done
        self._began: float | None = None  # when this process began its first stage
        self._last_line = 0.0
        self._dev = ""
        self._display: Progress | None = None
        self._on_terminate: Any = None

    def __enter__(self) -> RunProgress:
        if self.enabled and self._console.is_terminal:
            self._display = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[dev]}"),
                TimeElapsedColumn(),
                # rich's own estimate would take stages that an earlier process did for fast ones
                TextColumn("{task.fields[left]}"),
                console=self._console,
            )
            self._task = self._display.add_task("starting", total=None, dev="", left="")
            if threading.current_thread() is threading.main_thread():
                # a launcher ends the other ranks by this signal when one has failed
                self._on_terminate = signal.signal(signal.SIGTERM, self._terminate)
            # hides the cursor
            self._display.start()
            self._update()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back; lines are still said."""
        if self._display is not None:
            self._display.stop()
            self._display = None
        if self._on_terminate is not None:
            signal.signal(signal.SIGTERM, self._on_terminate)
            self._on_terminate = None

    def begin(self, stage: str, weight: float, fraction: float = 0.0) -> None:
        """Begin a stage of `weight` passes, a fraction of which an earlier process did."""
        self.stage, self._weight, self._fraction = stage, weight, fraction
        self._earlier += weight * fraction
        self._last_line = time.monotonic()
        self._began = self._began or self._last_line
        self._update("resumed" if fraction else "begins")

    def begin_anew(self, reason: str) -> None:
        """Begin the current stage anew: of what an earlier process did of it, nothing is left."""
        self.say(f"{self.stage}: begins anew, because {reason}")
        self._earlier -= self._weight * self._fraction
        self._fraction = 0.0
        self._update()

    def advance(self, fraction: float) -> None:
        """Show that a fraction of the current stage is done."""
        self._fraction = fraction
        self._update(f"{fraction:.0%}" if time.monotonic() - self._last_line > LINE_EVERY else None)

    def end(self) -> None:
        """End the current stage."""
        self._finished += self._weight
        self._weight = self._fraction = 0.0
        self._update("done")

    def skip(self, weight: float) -> None:
        """Count a stage that an earlier process did."""
        self._finished += weight
        self._earlier += weight
        self._update()

    def score(self, text: str) -> None:
        """Show the newest dev score."""
        self._dev = text
        self._update()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self.enabled:
            console = self._display.console if self._display else self._console
            console.print(printable(line), highlight=False, markup=False, emoji=False)

    def _terminate(self, number: int, frame: object) -> None:
        # not through the display, whose lock the interrupted code may hold
        self._console.file.write("\x1b[?25h\n")
        self._console.file.flush()
        signal.signal(number, self._on_terminate)
        os.kill(os.getpid(), number)

    def _update(self, event: str | None = None) -> None:
        """Update the display, or say a line where there is none and something has happened."""
        done = self._finished + self._weight * self._fraction
        fraction = min(1.0, done / self.total)
        left = ""
        here = done - self._earlier
        if self._began is not None and here > 0 and here >= LEAST_DONE * (self.total - self._earlier):
            seconds = (time.monotonic() - self._began) * self.total * (1 - fraction) / here
            left = f"about {format_duration(seconds)} left"
        if self._display is not None:
            self._display.update(
                self._task,
                total=self.total,
                completed=fraction * self.total,
                description=printable(self.stage) or "starting",
                dev=self._dev,
                left=left,
            )
        elif event is not None:
            self._last_line = time.monotonic()
            self.say(" | ".join(filter(None, [self.stage, event, f"run {fraction:.0%}", left, self._dev])))


def format_duration(seconds: float, decimals: int = 0) -> str:
    """A time as people read it; below a minute with so many decimals."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min"
        if hours
        else f"{minutes} min {rest:02d} s"
        if minutes
        else f"{seconds:.{decimals}f} s"
    )
