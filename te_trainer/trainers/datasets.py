"""What may be given as a data set of pairs, and which rows of it can be meant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

from datasets import Dataset, IterableDataset
from torch.utils.data import IterableDataset as TorchIterableDataset

from te_trainer.errors import InputError

TEXT = ("sentence1", "sentence2")
# Cosines in float32 exceed 1 by a few units in the last place.
TOLERANCE = 1e-3

Pairs: TypeAlias = Dataset | IterableDataset


@dataclass(frozen=True)
class PairCheck:
    """Refuses rows that cannot be meant.

    Args:
        name: Name of the argument that the data set was given as.
        label_needed: Whether a data set without the column `label` is refused.
        low, high: Labels outside of this interval are refused.
        reason: Why such labels cannot be meant, and what works instead.
    """

    name: str
    label_needed: bool = True
    low: float = -math.inf
    high: float = math.inf
    reason: str = ""

    def columns(self, dataset: Pairs) -> list[str]:
        """The columns that are read.

        Raises:
            InputError: the data set has no rows, or lacks a column.
        """
        check_columns(dataset, (*TEXT, "label") if self.label_needed else TEXT, self.name)
        return [name for name in (*TEXT, "label") if name in columns_of(dataset)]

    def rows(self, rows: Mapping[str, list[Any]], first: int) -> None:
        """Look at some rows.

        Args:
            rows: Their columns.
            first: Index of the first of them in the data set.

        Raises:
            InputError: names the row and the column of the first value that cannot be meant.
        """
        for column in TEXT:
            for row, text in enumerate(rows[column], first + 1):
                if type(text) is not str:
                    raise InputError(
                        f"{self.name}: row {row}: {column} is {_shown(text)}, which is no text; leave the row out, or "
                        "give a string"
                    )
        for row, label in enumerate(rows.get("label", ()), first + 1):
            if not (isinstance(label, Real) and math.isfinite(label)):
                hint = "leave the row out, or give a number"
                if not self.label_needed:
                    hint += "; without labels, leave the column out"
                raise InputError(f"{self.name}: row {row}: label is {_shown(label)}, which is no finite number; {hint}")
            if not self.low - TOLERANCE <= float(label) <= self.high + TOLERANCE:
                raise InputError(f"{self.name}: row {row}: label is {float(label):g}; {self.reason}")


def as_dataset(data: Any, name: str, stream: bool = False) -> Pairs:
    """A data set out of what a user gave.

    Args:
        data: A `Dataset`, an `IterableDataset`, or a sequence whose items are dicts (a list, a map-style data set of
            torch).
        name: Name of the argument.
        stream: Whether an `IterableDataset` stays one; otherwise it is read to its end.

    Raises:
        InputError: it is something else.
    """
    if isinstance(data, Dataset):
        # torch and numpy formats would give arrays where lists are read
        return data if data.format["type"] is None else data.with_format(None)
    if isinstance(data, IterableDataset):
        return data if stream else as_dataset(list(data), name)
    if isinstance(data, Mapping):
        splits = all(isinstance(value, Pairs) for value in data.values())
        hint = f"give one split, such as {name}=dataset['{next(iter(data), 'train')}']"
        raise InputError(
            f"{name}: a {type(data).__name__} with the {'splits' if splits else 'keys'} {', '.join(map(str, data))} "
            f"where one data set is expected; {hint if splits else 'make one of columns with Dataset.from_dict'}"
        )
    if isinstance(data, (TorchIterableDataset, str)) or not _is_sequence(data):
        raise InputError(
            f"{name}: a {type(data).__name__} where a datasets.Dataset or IterableDataset or a list of dicts "
            "is expected; convert it, for example with Dataset.from_pandas or IterableDataset.from_generator"
        )
    rows = [data[row] for row in range(len(data))]
    for row, values in enumerate(rows, 1):
        if not isinstance(values, Mapping):
            raise InputError(
                f"{name}: row {row} is {_shown(values)} where a dict with {' and '.join(TEXT)} is expected"
            )
    try:
        return Dataset.from_list([dict(values) for values in rows])
    except (ValueError, TypeError) as error:  # of Arrow: values of several types in one column
        raise InputError(f"{name}: a column holds values of several types ({_first_line(error)})") from None


def columns_of(dataset: Pairs) -> list[str]:
    """Names of a data set's columns; a stream that does not know them is asked for its first row."""
    if dataset.column_names is not None:
        return list(dataset.column_names)
    return list(next(iter(dataset), {}))


def check_columns(dataset: Pairs, names: Sequence[str], name: str) -> None:
    """Refuse a data set without rows or without one of these columns.

    Args:
        name: Name of the argument that the data set was given as.
    """
    found = columns_of(dataset)
    if not found or (isinstance(dataset, Dataset) and len(dataset) == 0):
        raise InputError(f"{name}: the dataset has no rows; give at least one pair")
    missing = [column for column in names if column not in found]
    if missing:
        others = [column for column in found if column not in names]
        # as many as are missing, and in their order, as sentence-transformers reads columns
        renamed = dict(zip(others, missing, strict=True)) if len(others) == len(missing) else "{old: new}"
        hint = f"rename with Dataset.rename_columns({renamed})" if others else "add it"
        raise InputError(f"{name}: the dataset has no column '{missing[0]}' among {', '.join(found)}; {hint}")


def _is_sequence(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not hasattr(data, "columns")


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
