"""Hashes of texts and of files, the same on every machine."""

from __future__ import annotations

import hashlib
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
    # whoever maps the Dataset leaves other Arrow files beside its own
    files = [file for pattern in ("*.arrow", "*/*.arrow") for file in path.glob(pattern)]
    named = (
        f"{file.relative_to(path).as_posix()} {file_digest(file)}\n"
        for file in sorted(files)
        if not file.name.startswith("cache-")
    )
    return hashlib.sha256("".join(named).encode()).hexdigest()
