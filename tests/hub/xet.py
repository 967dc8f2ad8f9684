"""A store of large files that hf_xet keeps in a folder: at an address `local://…` the client needs no server for it.

What goes over the wire to the Hub's own Xet servers is hf_xet's and theirs, and is not shown here; all that
huggingface_hub does around it is.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

ENTRY = 48  # bytes
VERIFIED, WITH_SHA256 = 1 << 31, 1 << 30
END = b"\xff" * 32


class XetStore:
    """The files that clients put into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def token(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Where the store is, as the Hub tells it: to hf_xet in the body, to huggingface_hub in headers."""
        url, until = f"local://{self.root}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(until)}
        return {"casUrl": url, "accessToken": "xet", "exp": until}, headers

    def hashes(self) -> dict[str, str]:
        """What the store calls its files, by their SHA-256."""
        found = {}
        for shard in (self.root / "xet" / "xorbs" / "shards").rglob("*.mdb"):
            content, at = shard.read_bytes(), ENTRY
            while content[at : at + 32] != END:
                name, (flags, parts) = content[at : at + 32], struct.unpack_from("<II", content, at + 32)
                at += ENTRY * (1 + parts * (2 if flags & VERIFIED else 1))
                if flags & WITH_SHA256:
                    found[as_hex(content[at : at + 32])] = as_hex(name)
                    at += ENTRY
        return found

    def read(self, sha256: str, size: int) -> bytes:
        """The content of a file; of a copy, because the client that put it there may have the store open."""
        from hf_xet import XetFileInfo, XetSession

        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(self.root, folder, dirs_exist_ok=True)
            file = Path(folder, "file")
            group = XetSession().new_file_download_group(
                endpoint=f"local://{folder}", token="xet", token_expiry_unix_secs=int(time.time()) + 3600
            )
            with group:
                group.start_download_file(XetFileInfo(self.hashes()[sha256], size), str(file))
            return file.read_bytes()


def as_hex(value: bytes) -> str:
    """A hash as it is written: four numbers of eight bytes, the last byte of each first."""
    return "".join(value[start : start + 8][::-1].hex() for start in range(0, 32, 8))
