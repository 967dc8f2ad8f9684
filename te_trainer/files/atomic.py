"""Atomic writes: a file or folder is written under another name beside its own, and renamed when it is whole.

So a run may be killed at any moment. Whoever writes the same thing again removes what a killed process left half
written, and nothing else. Folders, which hold hours of work, are on the disk before they have their name: power may
fail when what they were made of has just been removed. Small files wait for it only where whoever writes them asks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

PARTIAL = ".partial-"
LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # errors of fsync that say that what was written is lost


def remove(path: Path) -> None:
    """Remove a file, a folder with all it holds, or a link, which is not followed; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Give an empty folder that is renamed to `final` when the block ends well, and is removed when it does not."""
    with atomic_file(final, put_in_place) as partial:
        partial.mkdir(parents=True)
        yield partial
        remove(final)


def put_in_place(partial: Path, final: Path) -> None:
    """Rename what is whole: the disk has its content before its name, and its name when this returns."""
    sync(partial)
    partial.replace(final)
    _sync(final.parent)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder with all it holds."""
    for each in (*path.rglob("*"), path):
        _sync(each)


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _wait_for_disk(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # not every disk on the network can do that; then it keeps its files as well as it can
        if error.errno in LOST:
            raise


def _wait_for_disk(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # its fsync leaves the content in the drive's own memory; not every disk can do this
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def give_umask_mode(folder: Path) -> None:
    """Give weight files the mode of any new file; safetensors lets nobody but their owner read them."""
    new = folder / f"{PARTIAL}mode"
    new.touch()
    mode = new.stat().st_mode
    new.unlink()
    for path in folder.glob("[!.]*.safetensors"):
        path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_file(final: Path, put: Callable[[Path, Path], object] = Path.replace) -> Iterator[Path]:
    """Give the path of a file to write, which is renamed to `final` by `put` when the block ends well."""
    partial = final.with_name(PARTIAL + final.name)
    # a link of this name would be written through
    remove(partial)
    try:
        yield partial
    except BaseException:
        with contextlib.suppress(OSError):
            remove(partial)
        raise
    put(partial, final)
