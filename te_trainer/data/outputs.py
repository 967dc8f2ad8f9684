"""Predictions as files: a `.tsv` or `.parquet` that is written block by block and appears when it is whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from te_trainer.data.arrow_io import BLOCK_ROWS, SENTENCE_COLUMNS
from te_trainer.files.atomic import atomic_file


def prediction_blocks(pairs: Dataset, predictions: np.ndarray) -> Iterator[dict[str, Any]]:
    """Columns `sentence1`, `sentence2`, `prediction` (float32; NaN becomes null), block by block."""
    for start in range(0, len(pairs), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        block = pairs[rows]
        values = pa.array(predictions[rows], mask=np.isnan(predictions[rows]))
        yield {**{name: block[name] for name in SENTENCE_COLUMNS}, "prediction": values}


def neighbour_blocks(
    queries: Dataset, sentences: Dataset, rows: np.ndarray, scores: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Columns `query`, `rank` (from 1), `sentence`, `score`, block by block, the queries in their order.

    `rows` are those of `sentences` that each query found, the nearest first, shape (q, k), as that of `scores`.
    """
    top_k = rows.shape[1]
    step = max(1, BLOCK_ROWS // top_k)
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        texts = queries[block]["sentence1"]
        distinct, index = np.unique(rows[block], return_inverse=True)
        yield {
            "query": [query for query in texts for _ in range(top_k)],
            "rank": np.tile(np.arange(1, top_k + 1, dtype=np.int32), len(texts)),
            "sentence": pa.array(sentences[distinct.tolist()]["sentence1"]).take(pa.array(index.ravel())),
            "score": np.asarray(scores[block], dtype=np.float32).ravel(),
        }


def write_table(path: Path, blocks: Iterable[dict[str, Any]]) -> None:
    """Write blocks of columns as one file, in the format that its suffix names.

    In a `.tsv`, tabs and line breaks inside a text become spaces, null becomes an empty cell, and numbers have nine
    digits, as many as float32 needs.
    """
    tables = map(pa.table, blocks)
    with atomic_file(path) as partial:
        if path.suffix.lower() == ".parquet":
            first = next(tables)
            with pq.ParquetWriter(partial, first.schema) as writer:
                for table in chain([first], tables):
                    writer.write_table(table)
            return
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for number, table in enumerate(tables):
                if number == 0:
                    file.write("\t".join(table.column_names) + "\n")
                columns = [map(tsv_cell, column.to_pylist()) for column in table.columns]
                file.writelines("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def tsv_cell(value: Any) -> str:
    """A value as a cell of a .tsv file."""
    if isinstance(value, str):
        return re.sub(r"[\t\r\n]", " ", value)
    return "" if value is None else f"{value:.9g}"
