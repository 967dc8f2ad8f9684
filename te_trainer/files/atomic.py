"""The output folder of a run: whose it is, who works in it, and how it is written to.

Everything is written beside its place first and renamed when it is whole, so that a run may be killed at any moment.
What a killed run had not finished writing is removed by who writes the same thing again; nothing else is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from te_trainer.distributed import process_state
from te_trainer.errors import InputError

LOCK = ".lock"
PARTIAL = ".partial-"


@contextlib.contextmanager
def lock_run_dir(root: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the system lets go of it when the process ends, however it ends.

    After a failed start, one that leaves no `run.yaml`, the folders that this process made are removed again, if they
    are empty.

    Raises:
        InputError: the folder holds other things than a run, or another process holds it.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"output_dir: {root} is a file; name a folder")
    foreign = [path.name for path in root.iterdir()] if root.is_dir() else []
    foreign = [name for name in foreign if name != LOCK and not name.startswith(PARTIAL)]
    if foreign and not (root / "run.yaml").is_file():
        raise InputError(
            f"output_dir: {root} holds '{sorted(foreign)[0]}' and no run.yaml, so it is not a run's folder; name "
            "another one"
        )
    made: list[Path] = []
    lock = FileLock(root / LOCK)
    try:
        made += make_folder(root)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output_dir: another process works in {root}; wait for it, or name another folder") from None
    except OSError as error:
        remove_empty(made)
        if (root / LOCK).is_dir():
            raise InputError(f"output_dir: {root / LOCK} is a folder; delete it, or name another folder") from None
        raise InputError(f"output_dir: {root} cannot be made ({error.strerror}); name another folder") from None
    try:
        yield
    except BaseException:
        if not (root / "run.yaml").exists():
            # Removed while it is held: who opened it before finds out that it is gone, and takes another.
            (root / LOCK).unlink(missing_ok=True)
            remove_empty(made)
        raise
    finally:
        lock.release()


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; gives those that were not there before, the innermost first."""
    made: list[Path] = []
    folder = folder.absolute()
    for path in [*reversed(folder.parents), folder]:
        try:
            path.mkdir()
        except OSError:
            # The system may say many things of a folder that is there, for example that its disk is read-only.
            if not path.is_dir():
                remove_empty(made)
                if os.path.lexists(path):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
                raise
        else:
            made.insert(0, path)
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove those of some folders that hold nothing; each comes before its parent."""
    for path in folders:
        with contextlib.suppress(OSError):
            path.rmdir()


def remove(path: Path) -> None:
    """Remove a file, a folder with all it holds, or a link, which is not followed; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `final` when the block ends well, and is removed when it does not."""
    partial = final.with_name(PARTIAL + final.name)
    remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    remove(final)
    partial.replace(final)


def give_umask_mode(folder: Path) -> None:
    """Let whoever may read a new file read the weights in a folder; safetensors lets nobody but their owner."""
    new = folder / f"{PARTIAL}mode"
    new.touch()
    mode = new.stat().st_mode
    new.unlink()
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Give a path, where nothing is yet, that becomes `final` when the block ends well."""
    partial = final.with_name(PARTIAL + final.name)
    # a link of this name would be written through
    remove(partial)
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(final)


@contextlib.contextmanager
def folder_for(file: Path) -> Iterator[None]:
    """Make the folder that a file is to be written to; a folder that is made, and stays empty, is removed again.

    Raises:
        InputError: it cannot be made, or nothing can be written to it.
    """
    folder = file.absolute().parent
    made: list[Path] = []
    try:
        made += make_folder(folder)
        # the system's own words, and nothing is left behind
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remove_empty(made)
        raise InputError(f"output: {folder} cannot be written to ({error.strerror}); name another folder") from None
    try:
        yield
    finally:
        remove_empty(made)


@contextlib.contextmanager
def lock_output_file(file: Path) -> Iterator[None]:
    """Hold a file that is to be written for this process alone, in a folder that is there.

    Raises:
        InputError: another process writes it.
    """
    path = file.with_name(f"{PARTIAL}{file.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output: another process writes {file}; wait for it, or name another file") from None
    try:
        yield
    finally:
        # Removed while it is held: who opened it before finds out that it is gone, and takes another.
        path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder that all ranks see, gone when the block ends."""
    state = process_state()
    if state.is_main_process:
        remove(path)
        path.mkdir(parents=True)
    state.wait_for_everyone()
    try:
        yield path
    finally:
        if state.is_main_process:
            shutil.rmtree(path, ignore_errors=True)
    state.wait_for_everyone()
