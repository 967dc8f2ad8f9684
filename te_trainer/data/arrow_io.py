"""Arrow files that are written block by block and mapped into memory when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS

BLOCK_ROWS = 10_000  # rows of an Arrow record batch, and rows in memory while a file is written or read

PAIR_SCHEMA = pa.schema([(name, pa.string()) for name in SENTENCE_COLUMNS])


def pair_blocks(pairs: Iterable[Sequence[str]]) -> Iterator[pa.RecordBatch]:
    """Pairs of sentences as record batches of `PAIR_SCHEMA`."""
    rows = iter(pairs)
    while block := list(islice(rows, BLOCK_ROWS)):
        yield pa.record_batch([list(column) for column in zip(*block, strict=True)], schema=PAIR_SCHEMA)


def write_arrow(path: Path, blocks: Iterable[pa.RecordBatch]) -> None:
    """Write record batches of `PAIR_SCHEMA` as one Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, PAIR_SCHEMA) as writer:
        for block in blocks:
            writer.write_batch(block)


def read_arrow_rows(path: Path, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Read these rows, in ascending order, of an Arrow file, block by block."""
    start = 0
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for block in stream:
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(block))]
            if len(inside):
                yield block.take(pa.array(inside - start))
            start += len(block)


def pairs_of(pairs: Dataset) -> Iterator[tuple[str, ...]]:
    """The pairs of a pool one by one."""
    for block in pairs.iter(batch_size=BLOCK_ROWS):
        yield from zip(*map(block.get, SENTENCE_COLUMNS), strict=True)
