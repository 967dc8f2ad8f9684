"""Predictions as files: block by block into `.tsv` or `.parquet`, there when they are whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from te_trainer.files.atomic import atomic_file

BLOCK = 10_000  # rows in memory while a file is written

PREDICTIONS = pa.schema([("sentence1", pa.string()), ("sentence2", pa.string()), ("prediction", pa.float32())])
NEIGHBOURS = pa.schema(
    [("query", pa.string()), ("rank", pa.int32()), ("sentence", pa.string()), ("score", pa.float32())]
)


def prediction_blocks(pairs: Dataset, predictions: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Rows of `sentence1`, `sentence2`, `prediction`.

    Args:
        pairs: columns `sentence1` and `sentence2`.
        predictions: float32, shape (n,); NaN becomes null.
    """
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        values = predictions[start : start + BLOCK]
        columns = [block["sentence1"], block["sentence2"], pa.array(values, mask=np.isnan(values))]
        yield pa.record_batch(columns, schema=PREDICTIONS)


def neighbour_blocks(
    queries: Dataset, sentences: Dataset, rows: np.ndarray, scores: np.ndarray
) -> Iterator[pa.RecordBatch]:
    """Rows of `query`, `rank` (from 1), `sentence`, `score`, the queries in their order.

    Args:
        queries, sentences: column `sentence1`.
        rows: int64, shape (q, k), which of `sentences` each query found, the nearest first.
        scores: float32, shape (q, k).
    """
    top_k = rows.shape[1]
    step = max(1, BLOCK // top_k)
    for start in range(0, len(queries), step):
        asked = queries[start : start + step]["sentence1"]
        found, places = np.unique(rows[start : start + step], return_inverse=True)
        texts = pa.array(sentences[found.tolist()]["sentence1"]).take(pa.array(places.ravel()))
        yield pa.record_batch(
            [
                [query for query in asked for _ in range(top_k)],
                np.tile(np.arange(1, top_k + 1, dtype=np.int32), len(asked)),
                texts,
                np.asarray(scores[start : start + step], dtype=np.float32).ravel(),
            ],
            schema=NEIGHBOURS,
        )


def write_table(path: Path, schema: pa.Schema, blocks: Iterable[pa.RecordBatch]) -> None:
    """Write blocks of rows as a file that is there when it is whole.

    In a `.tsv`, tabs and line breaks inside a text become spaces, null an empty cell, and numbers have nine digits, as
    many as float32 needs.
    """
    with atomic_file(path) as partial:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetWriter(partial, schema) as writer:
                for block in blocks:
                    writer.write_batch(block)
            return
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write("\t".join(schema.names) + "\n")
            for block in blocks:
                columns = [map(_cell, column.to_pylist()) for column in block]
                file.writelines("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return re.sub(r"[\t\r\n]", " ", value)
    return "" if value is None else f"{value:.9g}"
