"""Predictions as files of every format, written block by block; a file appears when it is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.arrow_io import BLOCK_ROWS
from te_trainer.data.other_columns import OtherColumns, to_json
from te_trainer.files.atomic import atomic_file

PREDICTION, PROBABILITY = "prediction", "probability"  # names of columns


def prediction_blocks(
    pairs: Dataset, scores: Mapping[str, np.ndarray], others: OtherColumns | None = None
) -> Iterator[dict[str, Any]]:
    """Columns `sentence1`, `sentence2`, those of scores (NaN becomes null) and others, block by block.

    Args:
        scores: Each of shape (n,), float32, by the name of its column.
    """
    of_others = repeat({}) if others is None else others.blocks(BLOCK_ROWS)
    for start, more in zip(range(0, len(pairs), BLOCK_ROWS), of_others, strict=False):
        rows = slice(start, start + BLOCK_ROWS)
        block = pairs[rows]
        columns = {name: pa.array(values[rows], mask=np.isnan(values[rows])) for name, values in scores.items()}
        yield {**{name: block[name] for name in SENTENCE_COLUMNS}, **columns, **more}


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

    Scores have nine digits, as many as float32 needs. In a `.tsv` and a `.csv`, null becomes an empty cell, and NUL is
    left out of a text. In a `.tsv`, tabs and line breaks inside a text become spaces.
    """
    tables = map(pa.table, blocks)
    suffix = path.suffix.lower()
    with atomic_file(path) as partial:
        if suffix == ".parquet":
            first = next(tables)
            with pq.ParquetWriter(partial, first.schema) as writer:
                for table in chain([first], tables):
                    writer.write_table(table)
            return
        with partial.open("w", encoding="utf-8", newline="") as file:
            for number, table in enumerate(tables):
                names, columns = table.column_names, [_values(column) for column in table.columns]
                rows = zip(*columns, strict=True)
                if suffix == ".jsonl":
                    file.writelines(to_json(dict(zip(names, row, strict=True))) + "\n" for row in rows)
                    continue
                lines = chain([names], rows) if number == 0 else rows
                separator, cell = (",", csv_cell) if suffix == ".csv" else ("\t", tsv_cell)
                file.writelines(separator.join(map(cell, _cells(line))) + "\n" for line in lines)


def tsv_cell(text: str) -> str:
    """A text as a cell of a .tsv file: without NUL, which no reader of lines takes."""
    return re.sub(r"[\t\r\n]", " ", text.replace("\0", ""))


def csv_cell(text: str) -> str:
    """A text as a cell of a .csv file; a `csv.writer` whose lines end in a line feed leaves "\\r" unquoted (3.11)."""
    text = text.replace("\0", "")
    if not re.search(r'[",\r\n]', text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _values(column: pa.ChunkedArray) -> Iterable[Any]:
    """The values of a column, as JSON has them."""
    values: list[Any] = column.to_pylist()
    if column.type == pa.float32():
        return (None if value is None else float(f"{value:.9g}") for value in values)
    if column.type == pa.json_():
        return (None if value is None else json.loads(value) for value in values)
    return values


def _cells(row: Iterable[Any]) -> list[str]:
    """The cells of a row: texts, and what is none as JSON writes it."""
    return [
        value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
        for value in row
    ]
