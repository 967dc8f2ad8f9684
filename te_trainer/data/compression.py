"""Files that are compressed as a whole, such as `pairs.tsv.gz`: their lines are read as if they were not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from te_trainer.errors import InputError

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def strip_compression(path: Path) -> Path:
    """A file's path without the ending that says how it is compressed."""
    return path.with_suffix("") if path.suffix.lower() in OPENERS else path


def file_format(path: Path) -> str:
    """The ending that names a file's format, in lower case: `.tsv` of `pairs.tsv` and of `Pairs.TSV.gz`."""
    return strip_compression(path).suffix.lower()


def raw_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines with their ends, uncompressed.

    Raises:
        InputError: The compressed file is damaged, or was not compressed as its ending says.
    """
    opener: Callable[..., IO[bytes]] = OPENERS.get(path.suffix.lower(), open)
    with opener(path, "rb") as file:
        try:
            yield from file
        except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            if opener is open or getattr(error, "errno", None) is not None:
                raise
            raise InputError(f"{path}: damaged, or not a {path.suffix} file ({error}); compress it anew") from None
