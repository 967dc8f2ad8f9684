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
