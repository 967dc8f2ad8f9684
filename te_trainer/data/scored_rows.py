"""Every row of a source of pairs in a memory-mapped Arrow file, to be scored in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.arrow_io import pair_blocks, write_arrow
from te_trainer.data.other_columns import OtherColumns
from te_trainer.data.readers import read_rows
from te_trainer.data.texts import as_texts
from te_trainer.errors import InputError


def write_rows(source: str, file: Path, others: OtherColumns | None = None, **reading: Any) -> list[str]:
    """Write all rows of a source of pairs in their order, duplicates included; says what the reader did to them.

    A sentence that a row lacks becomes an empty text. `others`, if given, receives the source's other columns.
    """
    notes: list[str] = []
    rows = read_rows(source, SENTENCE_COLUMNS, notes=notes, others=others is not None, **reading)
    plain = rows if others is None else others.set_aside(rows)
    write_arrow(file, pair_blocks(as_texts(position, values) for position, values in plain))
    if not len(rows_with_both(Dataset.from_file(str(file)))):
        split = reading.get("split")
        raise InputError(f"data.pairs: no pair of sentences in {source}" + (f", split '{split}'" if split else ""))
    return notes


def rows_with_both(pairs: Dataset) -> np.ndarray:
    """Ascending numbers of the rows in which neither sentence is empty."""
    empty = pc.or_(*(pc.equal(pairs.data.column(name), "") for name in SENTENCE_COLUMNS))
    return np.flatnonzero(~empty.to_numpy())
