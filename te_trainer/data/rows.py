"""Every row of a source as it stands, in one memory-mapped Arrow file: for scores that go back to their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from te_trainer.data.pool import BLOCK, SCHEMA, write_blocks
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError


def write_rows(
    source: str,
    file: Path,
    *,
    columns: dict[str, str] | None = None,
    benchmark_folder: str | None = None,
    split: str | None = None,
) -> list[str]:
    """Read a source of pairs once and write all its rows in their order, also those that stand there twice.

    Sentences lose the white space around them; where there is none, an empty text stands for it.

    Returns:
        what was done to the rows while they were read, for people.

    Raises:
        InputError: the source cannot be read, a row is broken, or no row has two sentences.
    """
    filled = False
    notes: list[str] = []

    def blocks() -> Iterator[pa.RecordBatch]:
        nonlocal filled
        rows: list[list[str]] = []
        for place, values in read_rows(
            source, ["sentence1", "sentence2"], columns or {}, benchmark_folder, split, notes
        ):
            texts = ["" if value is None else value for value in values]
            if not all(isinstance(text, str) for text in texts):
                raise InputError(f"{place}: a sentence is not text; mend or remove the row")
            rows.append([text.strip() for text in texts])
            filled = filled or all(rows[-1])
            if len(rows) == BLOCK:
                yield _batch(rows)
                rows = []
        if rows:
            yield _batch(rows)

    write_blocks(file, blocks())
    if not filled:
        raise InputError(f"data.pairs: no pair of sentences in {source}")
    return notes


def rows_with_both(pairs: Dataset) -> np.ndarray:
    """Numbers of the rows that lack neither sentence, ascending."""
    empty = pc.or_(*(pc.equal(pairs.data.column(name), "") for name in ("sentence1", "sentence2")))
    return np.flatnonzero(~empty.to_numpy())


def _batch(rows: list[list[str]]) -> pa.RecordBatch:
    return pa.record_batch([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA)
