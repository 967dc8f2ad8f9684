"""Every row of a source in one memory-mapped Arrow file: for scores that go back to their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from te_trainer.data.arrow_io import SENTENCE_COLUMNS, pair_blocks, write_arrow
from te_trainer.data.readers import read_texts
from te_trainer.errors import InputError


def write_rows(
    source: str,
    file: Path,
    *,
    columns: dict[str, str] | None = None,
    benchmark_folder: str | None = None,
    split: str | None = None,
) -> list[str]:
    """Read a source of pairs once and write all its rows in their order, duplicates included.

    A sentence that a row lacks becomes an empty text.

    Args:
        columns, benchmark_folder, split: As for `read_rows`.

    Returns:
        What the reader did to the rows, for people.

    Raises:
        InputError: The source cannot be read, a row is broken, or no row has two sentences.
    """
    notes: list[str] = []
    any_pair = False

    def pairs() -> Iterator[list[str]]:
        nonlocal any_pair
        for _, pair in read_texts(source, columns, benchmark_folder, split, notes):
            any_pair = any_pair or all(pair)
            yield pair

    write_arrow(file, pair_blocks(pairs()))
    if not any_pair:
        raise InputError(f"data.pairs: no pair of sentences in {source}")
    return notes


def rows_with_both(pairs: Dataset) -> np.ndarray:
    """Ascending numbers of the rows in which neither sentence is empty."""
    empty = pc.or_(*(pc.equal(pairs.data.column(name), "") for name in SENTENCE_COLUMNS))
    return np.flatnonzero(~empty.to_numpy())
