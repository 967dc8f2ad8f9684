"""Pairs that a Python program gives, as a file that a pool is read from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.data.arrow_io import SENTENCE_COLUMNS
from te_trainer.data.digests import file_digest
from te_trainer.data.readers import dataset_rows
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_file


def as_sources(
    pairs: str | os.PathLike[str] | Dataset | Iterable[Any] | None,
) -> tuple[list[str], Dataset | list[Any]]:
    """Split what a program gives as pairs into the names of sources and pairs themselves; one of both is empty."""
    if pairs is None:
        return [], []
    if isinstance(pairs, str | os.PathLike):
        return [os.fspath(pairs)], []
    if isinstance(pairs, dict):
        raise InputError(
            f"pairs: a {type(pairs).__name__} has splits or columns; give one Dataset, e.g. pairs['train']"
        )
    # whoever has a DataFrame has imported pandas
    if "pandas" in sys.modules and isinstance(pairs, sys.modules["pandas"].DataFrame):
        return as_sources(Dataset.from_pandas(pairs, preserve_index=False))
    given = pairs if isinstance(pairs, Dataset) else list(pairs.tolist() if isinstance(pairs, np.ndarray) else pairs)
    if not len(given):
        raise InputError("pairs is empty: give at least one pair of sentences, or the name of a source")
    if isinstance(given, list) and all(isinstance(item, str | os.PathLike) for item in given):
        return [os.fspath(item) for item in given], []
    return [], given


def write_given(pairs: Dataset | list[Any], file: Path, columns: Mapping[str, str], begun: bool) -> None:
    """Write pairs as JSON lines, under the names that `columns` maps `sentence1` and `sentence2` to.

    Raises an InputError where an item is no pair of texts, or where the run that reads the file has `begun` with
    others.
    """
    names = [columns.get(name, name) for name in SENTENCE_COLUMNS]
    with atomic_file(file) as new:
        with new.open("w", encoding="utf-8") as lines:
            for pair in _texts(pairs, columns):
                lines.write(json.dumps(dict(zip(names, pair, strict=True))) + "\n")
        if begun and file.is_file() and file_digest(file) != file_digest(new):
            raise InputError(f"pairs: they have changed since the run in {file.parent} began; name another output_dir")


def _texts(pairs: Dataset | list[Any], columns: Mapping[str, str]) -> Iterator[Sequence[str | None]]:
    items: Iterable[Any] = pairs
    if isinstance(pairs, Dataset):
        items = (values for _, values in dataset_rows("pairs", pairs, SENTENCE_COLUMNS, columns))
    for number, pair in enumerate(items):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pairs: item {number} is no pair of sentences; write (sentence1, sentence2)")
        if not all(isinstance(text, str | None) for text in pair):
            raise InputError(f"pairs: item {number}: a sentence is not text; correct or remove it")
        yield pair
