"""Token ids of many texts in a few arrays: an integer of a Python list takes ten times the memory, and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Tokens:
    """Rows of tokens, one after another. There is no attention mask: every token is a real one."""

    columns: dict[str, np.ndarray]  # `input_ids`, and what else the model reads of a token: int32, shape (tokens,)
    lengths: np.ndarray  # tokens of each row: int64, shape (n,)

    @classmethod
    def of_rows(cls, columns: Mapping[str, Sequence[Sequence[int]]]) -> Self:
        """Columns of one or more lists or arrays each, as a tokenizer gives them; an attention mask is left out."""
        flat = {
            name: np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
            for name, rows in columns.items()
            if name != "attention_mask"
        }
        return cls(flat, np.fromiter(map(len, columns["input_ids"]), dtype=np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The rows of one or more parts."""
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return cls(columns, np.concatenate([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: np.ndarray) -> Self:
        """The rows with these numbers, in their order."""
        starts, lengths = (np.cumsum(self.lengths) - self.lengths)[rows], self.lengths[rows]
        positions = spans(starts, lengths)
        return type(self)({name: values[positions] for name, values in self.columns.items()}, lengths)

    def rows(self) -> dict[str, list[list[int]]]:
        """Columns of n lists each."""
        bounds = list(pairwise([0, *np.cumsum(self.lengths).tolist()]))
        flat = {name: values.tolist() for name, values in self.columns.items()}
        return {name: [values[start:end] for start, end in bounds] for name, values in flat.items()}

    def arrow(self) -> dict[str, pa.ListArray]:
        """Columns of n lists each, and an attention mask, for an Arrow table."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        columns = self.columns | {"attention_mask": np.ones(ends[-1], dtype=np.int8)}
        # of types of tokens there are few
        types = {name: np.int32 if name == "input_ids" else np.int8 for name in columns}
        return {name: pa.ListArray.from_arrays(ends, values.astype(types[name])) for name, values in columns.items()}


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`starts[0]`, `starts[0] + 1` and so on, as many as `lengths[0]`, then those from `starts[1]`: int64."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
