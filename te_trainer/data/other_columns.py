"""What the rows of a source hold beside the sentences, on its way to the output: ids, dates, labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from te_trainer.data.request import Row
from te_trainer.data.texts import LONE_SURROGATE
from te_trainer.errors import InputError

INT64, EXACT = range(-(2**63), 2**63), range(-(2**53), 2**53 + 1)


class LongInt(int):
    """The kind of an integer that a float may not hold."""


NUMBERS = {
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({LongInt}): pa.int64(),
    frozenset({int, LongInt}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
}


class OtherColumns:
    """The other columns of a source, set aside in a scratch file of JSON lines and given back block by block.

    A row may lack a column that another one has. A column of truth values or numbers keeps its type, lists and objects
    stay JSON, and everything else is text, such as fractions beside integers that no float holds. None may have a name
    that is `taken` by a column of the output.
    """

    def __init__(self, file: Path, taken: Iterable[str]) -> None:
        self.file = file
        self.taken = frozenset(taken)
        self.kinds: dict[str, set[type]] = {}  # of the values of each column

    def set_aside(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass rows on without their last value, a dict of the other columns, and write these dicts down."""
        with self.file.open("w", encoding="utf-8") as file:
            for position, (*values, others) in rows:
                others = {name: None if value != value else value for name, value in others.items()}  # NaN
                for name, value in others.items():
                    self._note_kind(position, name, value)
                text = json.dumps(others, ensure_ascii=False, default=str)
                if LONE_SURROGATE.search(text):
                    raise InputError(f"{position}: half a character (a lone surrogate); correct or remove the row")
                file.write(f"{text}\n")
                yield position, values

    def blocks(self, size: int) -> Iterator[dict[str, pa.Array]]:
        """The columns of so many rows at a time, each of one type throughout."""
        types = {name: self._type(name) for name in self.kinds}
        with self.file.open(encoding="utf-8", newline="\n") as file:
            rows = map(json.loads, file)
            while block := list(islice(rows, size)):
                yield {name: _array([row.get(name) for row in block], type_) for name, type_ in types.items()}

    def _note_kind(self, position: str, name: str, value: Any) -> None:
        if name not in self.kinds:
            if name in self.taken:
                raise InputError(
                    f"{position}: the column '{name}' has the name of one that the output gets; rename it, or leave "
                    "the file's other columns out with --data.keep false"
                )
            self.kinds[name] = set()
        if value is not None:
            kind = type(value)
            if kind is int and value not in EXACT:
                kind = LongInt if value in INT64 else str
            self.kinds[name].add(kind)

    def _type(self, name: str) -> pa.DataType:
        kinds = self.kinds[name]
        return pa.json_() if kinds & {list, dict} else NUMBERS.get(frozenset(kinds), pa.string())


def to_json(value: Any) -> str:
    """A value as JSON, which knows no infinite number and no NaN: they become null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), ensure_ascii=False)


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    if type_ == pa.json_():
        texts = [None if value is None else to_json(value) for value in values]
        return pa.ExtensionArray.from_storage(type_, pa.array(texts, pa.string()))
    if type_ == pa.string():
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(values, type_)
