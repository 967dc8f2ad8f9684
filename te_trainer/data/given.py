"""Pairs that a Python program gives: checked, and as a file that a pool is read from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.arrow_rows import dataset_rows
from te_trainer.data.digests import file_digest
from te_trainer.data.request import Request
from te_trainer.data.texts import no_text
from te_trainer.errors import InputError, first_line
from te_trainer.files.atomic import atomic_file

_EXPECTED = "give a list of pairs (sentence1, sentence2), a datasets.Dataset, a pandas DataFrame or a file's name"


def as_sources(
    pairs: str | os.PathLike[str] | Dataset | Iterable[Any] | None, columns: Any = None
) -> tuple[list[str], Dataset | list[Any]]:
    """Split what a program gives as pairs into the names of sources and pairs themselves; one of both is empty.

    `columns` is what the program gives as `data.columns`.
    """
    if pairs is None:
        return [], []
    if isinstance(pairs, str | os.PathLike):
        return [os.fspath(pairs)], []
    if isinstance(pairs, dict):
        raise InputError(
            f"pairs: a {type(pairs).__name__} has splits or columns; give one Dataset, e.g. pairs['train']"
        )
    if _is_frame(pairs):
        columns = columns if isinstance(columns, Mapping) else {}
        wanted = [columns.get(name, name) for name in SENTENCE_COLUMNS]
        table: Any = pairs
        if set(wanted) <= set(table.columns):
            # others may hold what Arrow does not take
            table = table[wanted]
        _refuse_twice(table)
        try:
            return as_sources(Dataset.from_pandas(table, preserve_index=False))
        except pa.ArrowException as error:
            raise InputError(
                f"pairs: a column of the DataFrame holds more than texts ({first_line(error)}); make it text with "
                "astype(str)"
            ) from None
    kind = type(pairs).__name__
    try:
        given = pairs if isinstance(pairs, Dataset) else [*(pairs.tolist() if isinstance(pairs, np.ndarray) else pairs)]
    except TypeError:
        raise InputError(f"pairs: a {kind}; {_EXPECTED}") from None
    if not len(given):
        raise InputError("pairs is empty: give at least one pair of sentences, or the name of a source")
    if isinstance(given, list) and all(isinstance(item, str | os.PathLike) for item in given):
        return [os.fspath(item) for item in given], []
    known = (Dataset, list, tuple, np.ndarray)
    if not isinstance(pairs, known) and not isinstance(given[0], str | os.PathLike | Mapping | list | tuple):
        raise InputError(f"pairs: a {kind} of {type(given[0]).__name__}; {_EXPECTED}")
    return [], given


def _is_frame(pairs: Any) -> bool:
    # whoever has a DataFrame has imported pandas
    return "pandas" in sys.modules and isinstance(pairs, sys.modules["pandas"].DataFrame)


def _refuse_twice(table: Any) -> None:
    """Refuse a DataFrame with two columns of one name."""
    for name in table.columns[table.columns.duplicated()]:
        raise InputError(f"pairs: several columns of the DataFrame are named '{name}'; rename all but one")


def write_given(pairs: Dataset | list[Any], file: Path, columns: Mapping[str, str], begun: bool) -> None:
    """Write pairs as JSON lines, under the names that `columns` maps `sentence1` and `sentence2` to.

    Raises an InputError where an item is no pair of texts, or where the run that reads the file has `begun` with
    others.
    """
    names = [columns.get(name, name) for name in SENTENCE_COLUMNS]
    with atomic_file(file) as new:
        with new.open("w", encoding="utf-8") as lines:
            for pair in _texts(pairs, Request(SENTENCE_COLUMNS, columns)):
                lines.write(json.dumps(dict(zip(names, pair, strict=True))) + "\n")
        if begun and file.is_file() and file_digest(file) != file_digest(new):
            raise InputError(f"pairs: they have changed since the run in {file.parent} began; name another output_dir")


def _texts(pairs: Dataset | list[Any], request: Request) -> Iterator[Sequence[str | None]]:
    items: Iterable[Any] = pairs
    if isinstance(pairs, Dataset):
        items = (values for _, values in dataset_rows("pairs", pairs, request))
    for number, item in enumerate(items):
        pair = item
        if isinstance(item, Mapping):
            pair = [item[name] for name in request.find_columns(f"pairs: item {number}", item)]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pairs: item {number} is no pair of sentences; write (sentence1, sentence2)")
        for name, text in zip(request.wanted, pair, strict=True):
            if not isinstance(text, str | None):
                raise InputError(f"pairs: item {number}: {no_text(name, text)}{_such_as(name)}")
        yield pair


def as_pairs(pairs: Any) -> Dataset:
    """The two columns of pairs, refused where a row holds no two texts; an empty text is one."""
    if isinstance(pairs, np.ndarray):
        pairs = pairs.tolist()
    if isinstance(pairs, list | tuple):
        items = [*_texts(list(pairs), Request(SENTENCE_COLUMNS, fix="rename yours"))]
        columns = {name: [pair[side] for pair in items] for side, name in enumerate(SENTENCE_COLUMNS)}
    elif isinstance(pairs, Dataset):
        missing = [name for name in SENTENCE_COLUMNS if name not in pairs.column_names]
        if missing:
            raise InputError(f"pairs: no column '{missing[0]}' among {', '.join(pairs.column_names)}; rename yours")
        pairs = pairs.select_columns(list(SENTENCE_COLUMNS))
        table = pairs.data
        if all(_is_text(table.column(name)) for name in SENTENCE_COLUMNS):
            return pairs.with_format(None)
        columns = {name: pairs.with_format(None)[name][:] for name in SENTENCE_COLUMNS}
    else:
        if _is_frame(pairs):
            _refuse_twice(pairs)
        try:
            columns = {name: pairs[name] for name in SENTENCE_COLUMNS}  # of pandas, too
        except (KeyError, TypeError):
            raise InputError(
                f"pairs: a {type(pairs).__name__} without columns {' and '.join(SENTENCE_COLUMNS)}; give these, or a "
                "list of pairs (sentence1, sentence2)"
            ) from None
        for name, column in columns.items():
            if isinstance(column, str):
                raise InputError(f"pairs: {name} is one text; give a list of texts")
        columns = {
            name: column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)
            for name, column in columns.items()
        }
    for name, column in columns.items():
        for row, text in enumerate(column, 1):
            if isinstance(text, Number) and text == text:  # no NaN, which pandas has where a text is missing
                raise InputError(f"pairs: row {row}: {no_text(name, text)}{_such_as(name)}")
            if not isinstance(text, str):
                raise InputError(f"pairs: row {row}: {name} is {str(text)[:60]}, which is no text; leave the row out")
    if len(set(map(len, columns.values()))) > 1:
        raise InputError(
            f"pairs: {' and '.join(f'{len(column):,}' for column in columns.values())} texts make no pairs"
        )
    try:
        return Dataset.from_dict(columns)
    except UnicodeEncodeError:
        raise InputError("pairs: a text holds half a character (a lone surrogate); leave the row out") from None


def _such_as(name: str) -> str:
    return f', such as frame["{name}"].astype(str) of pandas'


def _is_text(column: pa.ChunkedArray) -> bool:
    return (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) and not column.null_count
