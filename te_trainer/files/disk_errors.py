"""What a disk says when it does not take what is written to it, in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from te_trainer.errors import DivergedError, InputError

DISK_ERRORS = {
    errno.ENOSPC: "no disk space left in {folder}; make room",
    errno.EDQUOT: "the disk quota in {folder} is used up; remove files, or have the quota raised",
    errno.EFBIG: "a file in {folder} would be larger than the system allows; raise the limit (ulimit -f), or take a "
    "disk that holds larger files",
    errno.EROFS: "{folder} is on a disk that is mounted read-only; mount it for writing",
    errno.EIO: "the disk of {folder} cannot be read or written (input/output error); check the disk",
    errno.ESTALE: "the disk of {folder} cannot be read or written (stale file handle); check the network disk",
    errno.EACCES: "a file or folder in {folder} may not be read or written (permission denied); change its mode",
    errno.EPERM: "a file or folder in {folder} may not be changed (operation not permitted); make it your own",
}
# How libraries name these errors where they do not hand on the number.
WORDS = {
    errno.ENOSPC: ("No space left on device", "os error 28"),
    errno.EDQUOT: ("Disk quota exceeded", "Quota exceeded", "os error 122"),
    errno.EFBIG: ("File too large", "os error 27"),
    errno.EROFS: ("Read-only file system", "os error 30"),
    errno.EIO: ("Input/output error", "os error 5)"),
    errno.ESTALE: ("Stale file handle", "os error 116"),
    errno.EACCES: ("Permission denied", "os error 13)"),
}
# torch.save, and numpy's and C++'s writers say only that a file took less than it was given.
CUT_SHORT = ("unexpected pos", "file write failed", "iostream error", "requested and")
SPACE_LEFT = 1_000_000  # bytes; with fewer, whatever failed is put down to the disk


@contextlib.contextmanager
def disk_errors_as_input_error(root: Path, key: str = "output_dir") -> Iterator[None]:
    """Say in one sentence that the disk is full, or what else it says; libraries wrap its errors in many of their own.

    Args:
        key: of the configuration, that names the folder.

    Raises:
        InputError: names the folder, and how to fix it.
    """
    try:
        yield
    except (InputError, DivergedError):
        raise
    except Exception as error:
        sentence = _sentence(error, root, key)
        if sentence is None:
            raise
        raise InputError(f"{sentence}, and run the same command again") from None


def _sentence(error: Exception, root: Path, key: str) -> str | None:
    """What is wrong with the disk; None for an error of another kind."""
    chain = _chain(error)
    for link in chain:
        number = _number(link)
        if number is not None:
            folder = _folder(link, root)
            return f"{f'{key}: ' if folder == root else ''}{DISK_ERRORS[number].format(folder=folder)}"
    # what is met while a half-written file is cleared hides what stopped the writing
    for link in chain:
        if (path := _in_the_way(link, root)) is not None:
            kind = "folder" if path.is_dir() else "link" if path.is_symlink() else "file"
            return f"{key}: {path} is a {kind}, and something else is to be there; move or delete it"
    if root.exists() and shutil.disk_usage(root).free < SPACE_LEFT:
        return f"{key}: {DISK_ERRORS[errno.ENOSPC].format(folder=root)}"
    if any(words in str(link) for link in chain for words in CUT_SHORT):
        return (
            f"{key}: a file in {root} could not be written to its end; see whether the disk is full, or a quota or a "
            "limit of file sizes (ulimit -f) is reached, make room"
        )
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those that it was raised for, each once."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.errno
    if isinstance(error, OSError) and error.errno is not None:
        return None
    text = str(error)
    return next((number for number, words in WORDS.items() if any(word in text for word in words)), None)


def _in_the_way(error: BaseException, root: Path) -> Path | None:
    """A file or link inside of `root` where a folder is to be, or a folder where a file is to be."""
    if not isinstance(error, OSError) or error.errno not in {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}:
        return None
    root = root.absolute()
    named = [Path(name).absolute() for name in (error.filename2, error.filename) if isinstance(name, (str, Path))]
    for path in [path for path in named if root in path.parents]:
        above = [each for each in reversed(path.parents) if root in each.parents]
        for each in above if error.errno == errno.EISDIR else [*above, path]:
            if os.path.lexists(each) and not each.is_dir():
                return each
        if error.errno == errno.EISDIR and path.is_dir():
            return path
    return None


def _folder(error: BaseException, root: Path) -> Path:
    """The folder of the file that an error names, where that lies elsewhere, for example in the Hub's cache."""
    name = getattr(error, "filename", None)
    if not isinstance(name, (str, Path)) or not Path(name).is_absolute():
        return root
    path = Path(name)
    return root if path.is_relative_to(root.absolute()) or path.is_relative_to(root) else path.parent
