"""What a reader of rows is asked for, and how it finds that among a source's columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from te_trainer.data.benchmarks import Rows
from te_trainer.errors import InputError, MissingColumnError

Row = tuple[str, list[Any]]  # (position, e.g. "pairs.tsv, line 7"; the values of the wanted columns)


@dataclass(frozen=True)
class Request:
    """What a reader is asked for; no `rows` stands for all of them."""

    wanted: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Rows, ...] = ()
    notes: list[str] = field(default_factory=list)
    others: bool = False
    fix: str = "map it with data.columns"  # how to fix that the source lacks a column

    def find_columns(self, source: str, present: Iterable[str]) -> list[str]:
        """The source's column for each wanted name."""
        present = list(present)
        found: list[str] = []
        for name in self.wanted:
            mapped = self.columns.get(name, name)
            column = mapped if mapped in present else name
            taken = column != mapped and column in (self.columns.get(other, other) for other in self.wanted)
            if column not in present or taken:
                raise self.no_column(source, mapped, present)
            if present.count(column) > 1:
                raise InputError(f"{source}: {present.count(column)} columns are named '{column}'; rename all but one")
            if column in found:
                raise InputError(
                    f"{source}: {self.wanted[found.index(column)]} and {name} would both be read from the column "
                    f"'{column}'; map each to a column of its own with data.columns"
                )
            found.append(column)
        return found

    def no_column(self, source: str, name: str, present: Iterable[str]) -> MissingColumnError:
        return MissingColumnError(f"{source}: no column '{name}' among {', '.join(present)[:500]}; {self.fix}")

    def find_others(self, source: str, present: Iterable[str], found: Sequence[str]) -> list[str]:
        """The source's other columns, if they are asked for; a column without a name is left out."""
        if not self.others:
            return []
        names = [name for name in present if name and name not in found]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise InputError(
                f"{source}: several columns are named '{twice[0]}'; rename all but one, or leave the file's other "
                "columns out with --data.keep false"
            )
        return names

    def row(self, values: list[Any], others: Mapping[str, Any]) -> list[Any]:
        """The values that are asked for."""
        return [*values, others] if self.others else values

    def chooser(self) -> Callable[[Any], bool]:
        """A function that says whether a row is wanted by its split; it must see every row of a source in turn."""
        rows = {each.split: each for each in self.rows}
        seen: Counter[str] = Counter()

        def is_wanted(split: Any) -> bool:
            if not isinstance(split, str):
                return False
            number, each = seen[split], rows.get(split)
            seen[split] += 1
            return each is not None and each.start <= number and (each.stop is None or number < each.stop)

        return is_wanted
