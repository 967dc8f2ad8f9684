"""Who may write an output file: one process locks it, and makes the folders that are not there."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from te_trainer.errors import InputError
from te_trainer.files.atomic import PARTIAL


def refuse_windows() -> None:
    """Refuse the system on which no file is removed or renamed while a process has it open, as a run does with its own.

    Raises:
        InputError: This is Windows; its WSL is Linux.
    """
    if sys.platform == "win32":
        raise InputError(
            "te_trainer's commands do not run on Windows; run them in WSL 2, with the output folder in its own file "
            "system"
        )


@contextlib.contextmanager
def lock_output_file(file: Path) -> Iterator[None]:
    """Make the folder of an output file if need be, and hold the file for this process alone.

    Folders that this process made and that stay empty are removed again.
    """
    folder = file.absolute().parent
    made: list[Path] = []
    try:
        made += make_folder(folder)
        # a file without a name leaves nothing behind where it cannot be written
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remove_empty(made)
        raise InputError(f"output: {folder} cannot be written to ({error.strerror}); name another folder") from None
    path = file.with_name(f"{PARTIAL}{file.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output: another process writes {file}; wait for it, or name another file") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        remove_empty(made)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there before, the innermost first."""
    folder = folder.absolute()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(missing)
        raise
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders that are empty, in their order."""
    for path in folders:
        with contextlib.suppress(OSError):
            path.rmdir()
