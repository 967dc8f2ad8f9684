"""What a disk says when it does not take what is written to it, in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from te_trainer.errors import DivergedError, InputError, causes, first_line

DISK_ERRORS: dict[int, str] = {
    errno.ENOSPC: "no disk space left in {folder}; make room",
    errno.EDQUOT: "the disk quota in {folder} is used up; remove files, or have the quota raised",
    errno.EFBIG: "a file in {folder} is larger than allowed; raise the limit (ulimit -f), or take another disk",
    errno.EROFS: "{folder} is on a disk that is mounted read-only; mount it for writing",
    errno.EIO: "the disk of {folder} cannot be read or written (input/output error); check the disk",
    errno.ESTALE: "the disk of {folder} cannot be read or written (stale file handle); check the network disk",
    errno.EACCES: "a file or folder in {folder} may not be read or written (permission denied); change its mode",
    errno.EPERM: "a file or folder in {folder} may not be changed (operation not permitted); make it your own",
}
# What torch.save, and numpy's and C++'s writers say when a file took less than it was given.
CUT_SHORT = ("unexpected pos", "file write failed", "iostream error", "requested and")
SPACE_LEFT = 1_000_000  # bytes; with fewer, any failure is put down to the disk


@contextlib.contextmanager
def disk_errors_as_input_error(root: Path, key: str = "output_dir") -> Iterator[None]:
    """Say in one sentence what the disk says, for example that it is full; libraries wrap its errors in their own."""
    try:
        yield
    except (InputError, DivergedError):
        raise
    except Exception as error:
        sentence = _sentence(error, root, key)
        if sentence is None:
            raise
        raise InputError(f"{sentence}, and run the same command again") from None


@contextlib.contextmanager
def source_errors_as_input_error(source: str | Path) -> Iterator[None]:
    """Say in one sentence why what the user named cannot be read."""
    try:
        yield
    except OSError as error:
        fixes = {errno.EACCES: "; change the mode of it or of its folder", errno.EIO: "; check its disk"}
        name = error.filename if isinstance(error.filename, str) else source
        reason = error.strerror or first_line(error)
        raise InputError(f"{name}: cannot be read ({reason}){fixes.get(error.errno or 0, '')}") from None


def _sentence(error: Exception, root: Path, key: str) -> str | None:
    """What is wrong with the disk; None for an error of another kind."""
    chain = causes(error)
    for link in chain:
        number = _disk_error_number(link)
        if number is not None:
            folder = _folder(link, root)
            return f"{f'{key}: ' if folder == root else ''}{DISK_ERRORS[number].format(folder=folder)}"
    # A failed clearing of a half-written file hides why the file was not written, so it is looked at second.
    for link in chain:
        if (path := _in_the_way(link, root)) is not None:
            kind = "folder" if path.is_dir() else "link" if path.is_symlink() else "file"
            return f"{key}: {path} is a {kind}, and something else is to be there; move or delete it"
    if root.exists() and shutil.disk_usage(root).free < SPACE_LEFT:
        return f"{key}: {DISK_ERRORS[errno.ENOSPC].format(folder=root)}"
    if any(words in str(link) for link in chain for words in CUT_SHORT):
        return f"{key}: a file in {root} was cut short by a full disk, a quota or a limit (ulimit -f); make room"
    return None


def _disk_error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in DISK_ERRORS else None
    # Libraries that do not hand on its number name an error as C or as Rust does. Others than disks do not permit, too.
    for number in DISK_ERRORS.keys() - {errno.EPERM}:
        if os.strerror(number) in str(error) or f"(os error {number})" in str(error):
            return number
    return None


def _in_the_way(error: BaseException, root: Path) -> Path | None:
    """A file or link inside of `root` where a folder is to be, or a folder where a file is to be."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}:
        return None
    root = root.absolute()
    named = [Path(name).absolute() for name in (error.filename2, error.filename) if isinstance(name, (str, Path))]
    for path in [path for path in named if root in path.parents]:
        parents = [parent for parent in reversed(path.parents) if root in parent.parents]
        for folder in parents if error.errno == errno.EISDIR else [*parents, path]:
            if os.path.lexists(folder) and not folder.is_dir():
                return folder
        if error.errno == errno.EISDIR and path.is_dir():
            return path
    return None


def _folder(error: BaseException, root: Path) -> Path:
    """The folder of the file that an error names, where that lies outside of `root`, as the Hub's cache does."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, Path)) or not Path(name).is_absolute():
        return root
    path = Path(name)
    return root if path.is_relative_to(root.absolute()) or path.is_relative_to(root) else path.parent
