"""Files at addresses: on the Hub, in a bucket, on a web server. Their rows come block by block; no file is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from te_trainer.errors import InputError
from te_trainer.hub_errors import GATED, MISSING, hub_refusal, hub_trouble

FORMATS = (".parquet", ".jsonl", ".ndjson")
BLOCK_BYTES = 1 << 20  # that are asked for at once


def is_address(source: str) -> bool:
    """Whether a source is an address such as `https://…`, `s3://…` or `hf://…`."""
    return "://" in source


def address_format(source: str) -> str:
    """The ending of an address, in lower case; raises an InputError for a file that cannot be read there."""
    suffix = PurePosixPath(source).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"{source}: at an address, only {', '.join(FORMATS[:-1])} and {FORMATS[-1]} files can be read (several of "
            "them with *); download the file, and name it on this machine"
        )
    return suffix


def open_parquet(source: str) -> Any:
    """Open the file of an address, or all files that fit an address with `*`, as a stream of `datasets`."""
    from datasets import load_dataset

    return load_dataset("parquet", data_files=source, split="train", streaming=True)


def open_lines(source: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Give the name and the lines, without their ends, of the file of an address, or of all that fit one with `*`.

    The library's own reader of JSON is not used: it makes dates of texts and fills in what a row lacks.
    """
    from datasets import load_dataset_builder

    files = load_dataset_builder("json", data_files=source).config.data_files["train"]
    for file in files:
        yield source if len(files) == 1 else file, _lines(file)


def _lines(file: str) -> Iterator[bytes]:
    from datasets.utils.file_utils import xopen

    # its `read` tries again when a connection breaks
    with xopen(file, "rb") as stream:
        rest = b""
        while block := stream.read(BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
    if rest:
        yield rest


def failure(error: Exception, address: str, revision: str | None = None) -> str:
    """Why what lies at an address of the Hub or elsewhere could not be read."""
    from datasets.exceptions import DatasetNotFoundError

    if (known := hub_refusal(error, address, revision) or hub_trouble(error)) is not None:
        return known
    if isinstance(error, DatasetNotFoundError):  # the library has dropped what the Hub answered
        return GATED.format(address=address) if "gated" in str(error) else MISSING
    return " ".join(str(error).split())[:400] or type(error).__name__
