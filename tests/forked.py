"""Scripts as processes of their own, without the seconds in which each would import what all of them need.

A server that has imported it forks a process for each run: a real one, with files, signals and an end of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import glob
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
SAVE_FIGURE = Figure.savefig
FORKING = multiprocessing.get_context("forkserver")
# Names only: importing them here would be for nothing. One that fails costs time, and its run says why.
FORKING.set_forkserver_preload(
    [
        "te_trainer.commands.distil",
        "te_trainer.commands.contrastive",
        "te_trainer.commands.score",
        "te_trainer.cli",
        "transformers.models.bert.modeling_bert",
        "matplotlib.figure",
        "deepspeed",
    ]
)


class Forked:
    """A recipe's or another script's process, with what of `subprocess.Popen` tests need.

    Args:
        script: A path, or the name of a recipe.
        environment: More variables; those that a library reads while it is imported come too late.
        clock: Seconds between two full checkpoints of a training; 0 writes one at each step. By default a minute, which
            no tiny training takes.
        charts: Whether a run draws its curves and its page's charts, which take a third of a tiny run's time.
    """

    def __init__(
        self,
        script: str | Path,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        clock: float | None = None,
        charts: bool = False,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        what = (ROOT / "recipes" / script, list(arguments), self.folder.name, dict(environment or {}), clock, charts)
        self.process = FORKING.Process(target=_run, args=what)
        self.process.start()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def kill_at(self, folder: Path, pattern: str) -> None:
        """SIGKILL as soon as a path of this pattern exists in the folder.

        Raises:
            AssertionError: it ended before.
        """
        while self.poll() is None and not paths_in(folder, pattern):
            time.sleep(0.001)
        self.kill()
        assert self.wait() == -signal.SIGKILL, f"it ended before there was {pattern}: {self.said()}"

    def send(self, number: signal.Signals) -> None:
        """Another signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

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


def script_with(folder: Path, *lines: str) -> Path:
    """The main job's script with lines in front of its own, as a file in a folder."""
    recipe, file = ROOT / "recipes" / "trans_encoder.py", folder / "job.py"
    file.write_text("\n".join([*lines, recipe.read_text(encoding="utf-8")]), encoding="utf-8")
    return file


def paths_in(folder: Path, pattern: str) -> set[Path]:
    """What is there of a pattern; `Path.glob` fails where a folder vanishes while it looks."""
    return {Path(path) for path in glob.glob(f"{folder}/{pattern}")}  # noqa: PTH207


MAY_NOT_MOUNT = 77


def own_mounts() -> None:
    """Let this process mount what others do not see, and what goes with it, as `unshare --map-root-user --mount` does.

    It must have no second thread yet. Who may not mount exits with the status MAY_NOT_MOUNT.
    """
    identities = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    new_users, new_mounts = 0x10000000, 0x00020000
    try:
        if ctypes.CDLL(None).unshare(new_users | new_mounts):
            raise PermissionError
        for name, line in identities.items():
            Path("/proc/self", name).write_text(line, encoding="utf-8")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    except (AttributeError, OSError, subprocess.CalledProcessError):
        sys.exit(MAY_NOT_MOUNT)


def run_forked(script: str | Path, arguments: Sequence[str], charts: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    process = Forked(script, arguments, charts=charts)
    status = process.wait()
    return subprocess.CompletedProcess([str(script), *arguments], status, process.said("stdout"), process.said())


def start_ranks(
    script: str | Path,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    ranks: int = 2,
    clock: float | None = None,
) -> list[Forked]:
    """Start a script as processes that meet over gloo, as `accelerate launch` and torchrun start them on a CPU.

    Each has the variables that these set.

    Args:
        environment: More variables, as those that `accelerate launch` sets for an engine; by default that of a CPU.
        clock: As of [`Forked`]; the ranks then agree at each step.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **(environment or {"ACCELERATE_USE_CPU": "true"})}
    group |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    each = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    return [Forked(script, arguments, variables, clock) for variables in each]


def run_ranks(
    script: str | Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None, ranks: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run a script so to its end. What the ranks write is joined, and the status is 0 where it is so for all."""
    processes = start_ranks(script, arguments, environment, ranks)
    status = max((process.wait() for process in processes), key=abs)
    said = ("".join(process.said(stream) for process in processes) for stream in ("stdout", "stderr"))
    return subprocess.CompletedProcess([str(script), *arguments], status, *said)


def leave_charts_out(patch: Callable[[str, Any], None]) -> None:
    """What draws charts and curves draws nothing; `patch` sets an attribute by its path, as pytest's `setattr` does."""
    patch("te_trainer.report.charts._svg", lambda *_: Markup("<svg/>"))
    patch("matplotlib.figure.Figure.savefig", lambda _, file, **__: Path(file).write_bytes(b"\x89PNG"))


@contextlib.contextmanager
def drawn_curves() -> Iterator[None]:
    """This process draws curves nevertheless."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", SAVE_FIGURE)
        yield


def leave_disk_behind(patch: Callable[[str, Any], None]) -> None:
    """Nothing waits for the disk: no test cuts the power, and what SIGKILL ends has written all that it wrote."""
    patch("os.fsync", lambda _: None)


def _run(
    script: Path, arguments: list[str], folder: str, environment: dict[str, str], clock: float | None, charts: bool
) -> None:
    # as in a process of its own; else each worker of a loader would start another server
    multiprocessing.set_start_method("fork", force=True)
    for number, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, stream), os.O_WRONLY | os.O_CREAT), number)
    # a shell lets what it starts in the background ignore SIGINT, and so do the children of that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(ROOT)
    os.environ |= environment
    # accelerate collects garbage after each training; to search all that was imported would cost more than the training
    gc.freeze()
    if clock is not None:
        from te_trainer.runs import checkpoint_clock

        checkpoint_clock.FULL_CHECKPOINT_SECONDS, checkpoint_clock.TIMES_WHAT_SAVING_TOOK = clock, 0
        checkpoint_clock.STEPS_BETWEEN_AGREEMENTS = 1
    patch = pytest.MonkeyPatch().setattr
    leave_disk_behind(patch)
    if not charts:
        leave_charts_out(patch)
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
