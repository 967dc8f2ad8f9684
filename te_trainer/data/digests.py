"""Hashes of texts and of files, the same on every machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path


def text_digest(*texts: str) -> int:
    """Hash one or more texts to 64 bits."""
    joined = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(path: Path) -> str:
    """SHA-256 of a source of texts: of a file's bytes, or of the names and bytes of a saved Dataset's data files."""
    if path.is_file():
        return file_digest(path)
    named = (
        f"{file.relative_to(path).as_posix()} {file_digest(file)}\n" for file in _data_files(path) if file.is_file()
    )
    return hashlib.sha256("".join(named).encode()).hexdigest()


def _data_files(folder: Path) -> Iterator[Path]:
    """The files of a saved Dataset, or of a saved DatasetDict; other files may lie beside them."""
    own = folder / "state.json"
    for state in [own] if own.is_file() else sorted(folder.glob("*/state.json")):
        # whoever reads the data says what is wrong with them
        with contextlib.suppress(ValueError, KeyError, TypeError):
            for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]:
                yield state.parent / entry["filename"]
