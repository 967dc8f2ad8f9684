"""The pairs of sentences that a trainer takes: which data sets, which rows, and how they become token ids."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset, concatenate_datasets
from datasets.fingerprint import Hasher
from torch.utils.data import IterableDataset as TorchIterableDataset

from te_trainer.compat import row_numbers
from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.errors import InputError, first_line

# Cosines in float32 exceed 1 by a few units in the last place.
LABEL_TOLERANCE = 1e-3
CHECKED_TOGETHER = 10_000  # rows

Pairs: TypeAlias = Dataset | IterableDataset
AnyPairs = TypeVar("AnyPairs", Dataset, IterableDataset)
Columns: TypeAlias = dict[str, list[Any]]


@dataclass(frozen=True)
class PairCheck:
    """Refuses rows that are no pair of sentences, and labels that the loss cannot take."""

    name: str  # of the argument that holds the data set
    label_needed: bool = True
    label_range_reason: str | None = None  # why labels outside of [-1, 1] are refused; None where they are not

    def columns(self, dataset: Pairs) -> list[str]:
        """The columns that are read, if the data set has rows and every column that is needed."""
        needed = (*SENTENCE_COLUMNS, "label") if self.label_needed else SENTENCE_COLUMNS
        # a stream may not know its columns before its first row is read
        known = list(next(iter(dataset), {}) if dataset.column_names is None else dataset.column_names)
        if not known or (isinstance(dataset, Dataset) and len(dataset) == 0):
            raise InputError(f"{self.name}: the dataset has no rows; give at least one pair")
        missing = [column for column in needed if column not in known]
        if missing:
            others = [column for column in known if column not in needed]
            # in their order, as sentence-transformers reads columns
            renamed = dict(zip(others, missing, strict=True)) if len(others) == len(missing) else "{old: new}"
            hint = f"rename with Dataset.rename_columns({renamed})" if others else "add it"
            raise InputError(f"{self.name}: the dataset has no column '{missing[0]}' among {', '.join(known)}; {hint}")
        return [column for column in (*SENTENCE_COLUMNS, "label") if column in known]

    def texts(self, rows: Mapping[str, list[Any]], first: int) -> None:
        """Check the sentences of some rows; `first` is the index in the data set of the first of them."""
        for column in SENTENCE_COLUMNS:
            for row, text in enumerate(rows[column], first + 1):
                if isinstance(text, Real) and math.isfinite(text):  # pandas has NaN where a text is missing
                    raise InputError(
                        f"{self.name}: row {row}: {column} is a number ({text}); make the column text, such as "
                        f'frame["{column}"].astype(str) of pandas'
                    )
                if type(text) is not str or not text.strip():
                    raise InputError(
                        f"{self.name}: row {row}: {column} is {_short(text)}, which is no text; leave the row out, or "
                        "give one"
                    )

    def labels(self, labels: list[Any], first: int) -> None:
        """Check the labels of some rows, in the same way."""
        for row, label in enumerate(labels, first + 1):
            if not (isinstance(label, Real) and math.isfinite(label)):
                hint = "" if self.label_needed else "; without labels, leave the column out"
                raise InputError(
                    f"{self.name}: row {row}: label is {_short(label)}, which is no finite number; leave the row out, "
                    f"or give a number{hint}"
                )
            if self.label_range_reason is not None and abs(float(label)) > 1 + LABEL_TOLERANCE:
                raise InputError(f"{self.name}: row {row}: label is {float(label):g}; {self.label_range_reason}")


def as_dataset(data: Any, name: str, stream: bool = False) -> Pairs:
    """Make a data set of what a user passes as the argument `name`; without `stream`, a stream is read to its end."""
    if isinstance(data, Dataset) and data.format["type"] == "custom":
        raise InputError(
            f"{name}: the dataset has a transform (set_transform, with_transform), which is not applied here; apply it "
            "with Dataset.map"
        )
    if isinstance(data, Dataset):
        # torch and numpy formats would give arrays where lists are read
        return data if data.format["type"] is None else data.with_format(None)
    if isinstance(data, IterableDataset):
        return data.with_format(None) if stream else as_dataset(list(data.with_format(None)), name)
    if isinstance(data, Mapping):
        raise InputError(
            f"{name}: a {type(data).__name__} with the keys {', '.join(map(str, data))}, where one data set is "
            f"expected; give one split, such as {name}=dataset['train'], or make one of columns with Dataset.from_dict"
        )
    # whoever has a DataFrame has imported pandas
    if "pandas" in sys.modules and isinstance(data, sys.modules["pandas"].DataFrame):
        for twice in data.columns[data.columns.duplicated()]:
            raise InputError(f"{name}: several columns of the DataFrame are named '{twice}'; rename all but one")
        try:
            return Dataset.from_pandas(data, preserve_index=False)
        except pa.ArrowException as error:
            raise InputError(
                f"{name}: a column of the DataFrame holds values of several types ({first_line(error)}); make them one "
                "type, or leave the column out"
            ) from None
    # another table has a length and columns, but its items are no rows
    is_sequence = hasattr(data, "__len__") and hasattr(data, "__getitem__") and not hasattr(data, "columns")
    if isinstance(data, (TorchIterableDataset, str)) or not is_sequence:
        raise InputError(
            f"{name}: a {type(data).__name__} where a datasets.Dataset or IterableDataset or a list of dicts "
            "is expected; convert it, for example with Dataset.from_polars or IterableDataset.from_generator"
        )
    rows = [data[row] for row in range(len(data))]
    for row, values in enumerate(rows, 1):
        if not isinstance(values, Mapping):
            raise InputError(
                f"{name}: row {row} is {_short(values)} where a dict with {' and '.join(SENTENCE_COLUMNS)} is expected"
            )
    try:
        return Dataset.from_list([dict(values) for values in rows])
    except (ValueError, TypeError) as error:  # of Arrow
        raise InputError(f"{name}: a column holds values of several types ({first_line(error)})") from None


def tokenised(
    pairs: AnyPairs,
    encode: Callable[[list[str], list[str]], pa.Table],
    orders: Sequence[tuple[str, str]],
    check: PairCheck,
    key: tuple[Any, ...],
) -> AnyPairs:
    """Rows of what `encode` gives for both texts, `length` (of what pads the row), `row` in `pairs`, and any `label`.

    All pairs come once for each of `orders`: of a `Dataset` all pairs of the first one stand in front, of a stream a
    thousand. `key` is the tokenizer, and whatever else the result depends on. Of pairs that lie in a file, tokens are
    kept beside it, for the same sentences with other labels.
    """
    columns = check.columns(pairs)

    def encode_rows(rows: Columns, indices: list[int], orders: Sequence[tuple[str, str]]) -> pa.Table:
        check.texts(rows, indices[0])
        return pa.concat_tables(encode(rows[one], rows[two]).append_column("row", [indices]) for one, two in orders)

    def encode_stream(rows: Columns, indices: list[int]) -> Columns:
        encoded: Columns = encode_rows(rows, indices, orders).to_pydict()
        if "label" in rows:
            check.labels(rows["label"], indices[0])
            encoded["label"] = rows["label"] * len(orders)
        return encoded

    settings: dict[str, Any] = {"batched": True, "with_indices": True}
    if isinstance(pairs, IterableDataset):
        return pairs.select_columns(columns).map(encode_stream, remove_columns=columns, **settings)
    labels = None
    if "label" in columns:
        labels = pairs.data.column("label").take(pa.array(row_numbers(pairs))).combine_chunks()
        for start in range(0, len(pairs), CHECKED_TOGETHER):
            check.labels(labels[start : start + CHECKED_TOGETHER].to_pylist(), start)
    sentences, token_key = pairs.select_columns(list(SENTENCE_COLUMNS)), _token_key(key)
    cache_key: list[Any] = [_digest(sentences), token_key]
    parts = [
        sentences.map(
            encode_rows,
            fn_kwargs={"orders": [order]},
            remove_columns=sentences.column_names,
            new_fingerprint=Hasher.hash([*cache_key, order]),
            **settings,
        )
        for order in orders
    ]
    if labels is not None:
        parts = [part.add_column("label", labels) for part in parts]
    rows = concatenate_datasets(parts)
    rows.info.description = token_key
    return rows


def _token_key(key: tuple[Any, ...]) -> str:
    """A hash of the tokenizer, and of whatever else token ids depend on."""
    tokenizer, *others = key
    if tokenizer.is_fast:
        # pickled at each evaluation, as `Dataset.map` would, a vocabulary of 30,000 takes a quarter of a second, and
        # parsed one of 250,000 takes three; truncation and padding, which its last call set, stand in front of this key
        state = tokenizer.backend_tokenizer.to_str()
        state = state[state.index('"added_tokens":') :]
        digest = hashlib.sha256(state.encode()).hexdigest()
        tokenizer = [digest, tokenizer.model_input_names, tokenizer.truncation_side]
    return f"te_trainer tokens {Hasher.hash([tokenizer, others])}"


def _digest(sentences: Dataset) -> str:
    """A hash of the rows; the data set's own fingerprint says how it came about, the labels included."""
    digest = hashlib.sha256(row_numbers(sentences).tobytes())
    for batch in sentences.data.to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()


class TokenRows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows that `tokenised` gave, for a collator of the project's own: ids are arrays that lie in the mapped file.

    As lists, with an object for each token, those of 128 pairs take ten times as long: 3 ms.
    """

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows
        self._numbers = row_numbers(rows)
        names = [name for name in rows.column_names if name not in {"label", "length", "row", "attention_mask"}]
        self._columns = {name: _Lists(rows.data.column(name)) for name in names}
        self._labels = column_values(rows, "label") if "label" in rows.column_names else None

    def __reduce__(self) -> Any:
        return type(self), (self.rows,)  # a worker maps the file itself

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        numbers = self._numbers[indices]
        columns: dict[str, list[Any]] = {name: lists.take(numbers) for name, lists in self._columns.items()}
        if self._labels is not None:
            columns["label"] = self._labels[indices].tolist()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


class _Lists:
    """A column of lists of integers, of which none is copied."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._starts = np.cumsum([0, *map(len, column.chunks[:-1])])
        self._chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks]

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        found = []
        for chunk, row in zip(chunks.tolist(), (rows - self._starts[chunks]).tolist(), strict=True):
            offsets, values = self._chunks[chunk]
            found.append(values[offsets[row] : offsets[row + 1]])
        return found


def is_tokenised(dataset: Any, name: str, key: tuple[Any, ...]) -> bool:
    """Whether these are rows that `tokenised` gave for this `key`; token ids of others are refused.

    `name` is that of the argument that holds the data set.
    """
    if not isinstance(dataset, Dataset) or SENTENCE_COLUMNS[0] in dataset.column_names:
        return False
    if not any(column.startswith("input_ids") for column in dataset.column_names):
        return False
    if dataset.info.description != _token_key(key):
        raise InputError(
            f"{name}: token ids that this trainer's tokenizer, length and prompt, or this version, did not give; give "
            f"texts, in the columns {' and '.join(SENTENCE_COLUMNS)}"
        )
    return True


def once_each(rows: Dataset) -> Dataset:
    """The rows that a trainer trains on with each pair in one order, the first; they may hold both."""
    first = np.unique(column_values(rows, "row"), return_index=True)[1]
    return rows if len(first) == len(rows) else rows.select(np.sort(first))


def column_values(dataset: Dataset, column: str) -> np.ndarray:
    """A column of numbers, shape (n,)."""
    return np.asarray(dataset.with_format("numpy")[column][:])


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
