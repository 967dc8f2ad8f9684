"""Files at addresses: on the Hub, in a bucket, on a web server. Their rows come block by block; no file is kept."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from te_trainer.errors import InputError
from te_trainer.hub_errors import GATED, MISSING, hub_refusal, hub_trouble

BUILDERS = {".parquet": "parquet", ".jsonl": "json"}


def is_address(source: str) -> bool:
    """Whether a source is an address such as `https://…`, `s3://…` or `hf://…`."""
    return "://" in source


def open_address(source: str) -> Any:
    """Open the file of an address, or all files that fit an address with `*`, as a stream of `datasets`."""
    from datasets import load_dataset

    suffix = PurePosixPath(source).suffix.lower()
    if suffix not in BUILDERS:
        raise InputError(
            f"{source}: at an address, only {' and '.join(BUILDERS)} files can be read (several of them with *); "
            "download the file, and name it on this machine"
        )
    return load_dataset(BUILDERS[suffix], data_files=source, split="train", streaming=True)


def failure(error: Exception, address: str, revision: str | None = None) -> str:
    """Why what lies at an address of the Hub or elsewhere could not be read."""
    from datasets.exceptions import DatasetNotFoundError

    if (known := hub_refusal(error, address, revision) or hub_trouble(error)) is not None:
        return known
    if isinstance(error, DatasetNotFoundError):  # the library has dropped what the Hub answered
        return GATED.format(address=address) if "gated" in str(error) else MISSING
    return " ".join(str(error).split())[:400] or type(error).__name__
