"""Rows of every file format that a pool or a gold set may have, one at a time, each with the place it stands at.

A reader never holds a file: ten million pairs pass through it a row at a time.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from te_trainer.data.benchmarks import BENCHMARKS, Benchmark, Rows
from te_trainer.data.hub_sets import load_set, split_set
from te_trainer.data.quoting import count_csv_quoted, looks_quoted
from te_trainer.errors import InputError

Row = tuple[str, list[Any]]  # (place, e.g. "pairs.tsv, line 7"; the values of the wanted columns)

Names = list[tuple[str, str]]  # of each wanted column: what it is mapped to, and its plain name

Chosen = Callable[[str], bool]  # whether a row is wanted, by its split

FILE_SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl", ".parquet")


def read_rows(
    source: str,
    wanted: list[str],
    columns: dict[str, str],
    folder: str | None = None,
    split: str | None = None,
    notes: list[str] | None = None,
    pool: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a source.

    Args:
        source: a file, a saved Dataset folder, a benchmark's name, or a Hub id.
        wanted: names of the columns to give, e.g. `["sentence1", "sentence2"]`.
        columns: maps wanted names to the names that the source uses; where it has no such column, but one of the plain
            name, that one is taken: one mapping serves a pool and gold sets that are named otherwise.
        folder: where benchmark sets lie as `NAME.tsv`; without it they come from the Hub.
        split: only rows of this split, where the source has splits.
        notes: gets a line for what was done to the rows, once all are read.
        pool: of a benchmark, only the rows that belong to the paper's pool.

    Raises:
        InputError: the source cannot be read, a column is missing, a row is broken.
    """
    names = [(columns.get(name, name), name) for name in wanted]
    path = Path(source)
    if source in BENCHMARKS and not path.exists():
        benchmark = BENCHMARKS[source]
        if folder is not None:
            yield from _benchmark_file(benchmark, folder, wanted, split, pool)
        else:
            yield from _hub_benchmark(benchmark, wanted, split, pool)
    elif path.is_dir():
        yield from _saved_dataset(path, names, split)
    elif path.suffix.lower() in FILE_SUFFIXES:
        if not path.is_file():
            raise InputError(f"{source}: the file does not exist")
        yield from _file(path, names, split, notes)
    elif path.exists():
        raise InputError(f"{source}: the format '{path.suffix}' is not known; known are {', '.join(FILE_SUFFIXES)}")
    elif (named := split_set(source)) is not None:
        yield from _datasets(source, load_set(*named), names, split)
    else:
        raise InputError(f"{source}: no such file, folder, benchmark ({', '.join(BENCHMARKS)}) or Hub id (owner/name)")


def repository_of(source: str, folder: str | None) -> tuple[str, str | None] | None:
    """The Hub's repository, and its revision, that `read_rows` would read a source from; None of what lies here."""
    if Path(source).exists():
        return None
    if source in BENCHMARKS:
        return (BENCHMARKS[source].repository, None) if folder is None else None
    named = None if Path(source).suffix.lower() in FILE_SUFFIXES else split_set(source)
    return (named[0], named[2]) if named is not None else None


def read_lines(source: str, notes: list[str] | None = None) -> Iterator[Row]:
    """Yield the lines of a .txt file, each with the sentences that `||` stands between.

    Args:
        notes: as for `read_rows`.

    Raises:
        InputError: there is no such file, or a line is not UTF-8.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{source}: the file does not exist")
    rows = (
        (f"{path}, line {number}", list(line.rstrip("\r\n").split("||"))) for number, line in enumerate(_lines(path), 1)
    )
    return _quotes_noted(path, rows, notes)


def _file(path: Path, names: Names, split: str | None, notes: list[str] | None) -> Iterator[Row]:
    ending = path.suffix.lower()
    if ending == ".txt":
        return _quotes_noted(path, _txt(path, names), notes)
    if ending == ".tsv":
        quoted = count_csv_quoted(path)
        if not quoted:
            return _quotes_noted(path, _table(path, _unquoted(path), names, _of(split)), notes)
        if notes is not None:
            notes.append(f"{path}: {quoted:,} cells were quoted as CSV writers do; their quotes were taken off")
        return _table(path, csv.reader(_lines(path), delimiter="\t", strict=True), names, _of(split))
    if ending == ".csv":
        return _table(path, csv.reader(_lines(path), strict=True), names, _of(split))
    if ending == ".jsonl":
        return _jsonl(path, names, split)
    return _parquet(path, names, split)


def _unquoted(path: Path) -> Any:
    return csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)


def _quotes_noted(path: Path, rows: Iterator[Row], notes: list[str] | None) -> Iterator[Row]:
    """The rows, and at their end a note where cells look as if a CSV writer had quoted them."""
    found = 0
    for place, values in rows:
        found += sum(map(looks_quoted, values))
        yield place, values
    if found and notes is not None:
        notes.append(
            f"{path}: {found:,} sentences begin and end with a quote and double those inside, as CSV writers do; they "
            "were left as they stand"
        )


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends, naming the line where the encoding breaks."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
                ) from None
            if "\0" in line:
                raise InputError(f"{path}, line {number}: a NUL byte; the file is damaged, or not saved as UTF-8")
            yield line


def _txt(path: Path, names: Names) -> Iterator[Row]:
    if len(names) != 2:
        raise InputError(
            f"{path}: a .txt file has no column '{names[-1][0]}'; give gold scores as .tsv, .csv or .jsonl"
        )
    for number, line in enumerate(_lines(path), 1):
        line = line.rstrip("\r\n")
        place = f"{path}, line {number}"
        if not line.strip():
            yield place, ["", ""]
            continue
        parts = line.split("||")
        if len(parts) != 2:
            found = "no second sentence" if len(parts) == 1 else f"{len(parts)} sentences"
            raise InputError(f"{place}: {found}; a line is written sentence1||sentence2")
        yield place, list(parts)


def _table(path: Path, reader: Any, names: Names, chosen: Chosen | None) -> Iterator[Row]:
    try:
        header = next(reader, None)
        if header is None:
            raise InputError(f"{path}: the file is empty; its first line must name the columns")
        header = [name.strip() for name in header]
        _refuse_other_separator(path, header, "\t" if path.suffix.lower() == ".tsv" else ",")
        at = [header.index(name) for name in _columns(str(path), names, header)]
        split_at = header.index("split") if chosen is not None and "split" in header else None
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                yield place, [""] * len(names)
                continue
            if len(row) != len(header):
                raise InputError(f"{place}: {len(row)} columns where the header has {len(header)}; mend the row")
            if chosen is None or split_at is None or chosen(row[split_at]):
                yield place, [row[position] for position in at]
    except csv.Error as error:
        at_header = ", or save the file with commas between its columns" if reader.line_num == 1 else ""
        raise InputError(f"{path}, line {reader.line_num}: {_fault(str(error))}; mend the row{at_header}") from None


def _refuse_other_separator(path: Path, header: list[str], separator: str) -> None:
    """Refuse a header that another character separates, such as Excel's semicolons, with what helps."""
    line = header[0].casefold()
    excel = line.startswith("sep=")
    for other, title in {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}.items():
        if len(header) == 1 and other != separator and (other in line or (excel and line[4:5] == other)):
            wanted = {",": "commas", "\t": "tabs"}[separator]
            raise InputError(
                f"{path}: {title} separate the columns, where {wanted} are expected; save the file with {wanted}"
                + (", or as .tsv" if other == "\t" else ", or as .csv" if other == "," else "")
            )
    if excel:
        raise InputError(f"{path}: the first line is '{header[0]}', not the names of the columns; remove the line")


def _fault(error: str) -> str:
    """What the csv module means, which has one kind of error for all."""
    if error.startswith("new-line character"):
        return "a carriage return in the middle of the line"
    if error.startswith("field larger"):
        return f"a cell of more than {csv.field_size_limit():,} characters, or a quote that is never closed"
    return f"broken quoting ({error})"


def _columns(source: str, names: Names, present: Iterable[str]) -> list[str]:
    """The column that each name stands for."""
    present = list(present)
    found: list[str] = []
    for mapped, plain in names:
        column = mapped if mapped in present else plain
        if column not in present or (column != mapped and column in dict(names)):
            raise _no_column(source, mapped, present)
        if present.count(column) > 1:
            raise InputError(f"{source}: {present.count(column)} columns are named '{column}'; rename all but one")
        if column in found:
            one, two = (names[found.index(column)][1], plain)
            raise InputError(
                f"{source}: {one} and {two} would both be read from the column '{column}'; map each to a column of its "
                "own with data.columns"
            )
        found.append(column)
    return found


def _no_column(source: str, name: str, present: Iterable[str]) -> InputError:
    listed = ", ".join(present)
    shown = listed if len(listed) < 500 else f"{listed[:500]} …"
    return InputError(f"{source}: no column '{name}' among {shown}; map it with data.columns")


def _jsonl(path: Path, names: Names, split: str | None) -> Iterator[Row]:
    columns: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            yield place, [""] * len(names)
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: not JSON ({error.msg}); a line is one object") from None
        except RecursionError:
            raise InputError(f"{place}: lists or objects too deep inside one another; mend or remove the row") from None
        except ValueError:
            most = sys.get_int_max_str_digits()
            raise InputError(f"{place}: a number of more than {most:,} digits; mend or remove the row") from None
        if not isinstance(row, dict):
            raise InputError(f"{place}: a {type(row).__name__} where an object is expected")
        columns = columns or _columns(place, names, row)
        for column in columns:
            if column not in row:
                raise _no_column(place, column, row)
        if split is None or row.get("split", split) == split:
            values = [row[column] for column in columns]
            if any(isinstance(value, str) and not value.isascii() and _cut(value) for value in values):
                raise InputError(f"{place}: half a character (a lone surrogate); mend or remove the row")
            yield place, values


def _cut(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _parquet(path: Path, names: Names, split: str | None) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({_first_line(error)}); save it anew") from None
    present = file.schema_arrow.names
    chosen = _columns(str(path), names, present)
    with_split = split is not None and "split" in present
    number = 0
    for batch in _batches(path, file, chosen + (["split"] if with_split else [])):
        splits = batch.column("split").to_pylist() if with_split else None
        try:
            columns = [batch.column(name).to_pylist() for name in chosen]
        except UnicodeDecodeError:
            raise InputError(f"{path}, rows {number + 1} to {number + len(batch)}: not UTF-8; save them anew") from None
        for offset, values in enumerate(zip(*columns, strict=True)):
            number += 1
            if splits is None or splits[offset] == split:
                yield f"{path}, row {number}", list(values)


def _batches(path: Path, file: Any, columns: list[str]) -> Iterator[Any]:
    try:
        yield from file.iter_batches(columns=columns)
    except OSError as error:  # what pyarrow raises where it cannot decode a page
        raise InputError(f"{path}: the file is damaged ({_first_line(error)}); save it anew") from None


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "".join(character for character in line if character.isprintable()).rstrip(".: ")


def _saved_dataset(path: Path, names: Names, split: str | None) -> Iterator[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except (FileNotFoundError, ValueError):
        raise InputError(f"{path}: the folder is no Dataset saved with save_to_disk; name a file in it") from None
    yield from _datasets(str(path), loaded if isinstance(loaded, DatasetDict) else {"": loaded}, names, split)


def _datasets(source: str, splits: Any, names: Names, split: str | None) -> Iterator[Row]:
    if split == "dev" and "dev" not in splits and "validation" in splits:
        split = "validation"
    chosen = {name: rows for name, rows in splits.items() if split is None or name in {split, ""}}
    if not chosen:
        raise InputError(f"{source}: no split '{split}' among {', '.join(splits)}")
    for split_name, dataset in chosen.items():
        wanted = _columns(source, names, dataset.column_names)
        number = 0
        where = f"{source}, {split_name} row" if split_name else f"{source}, row"
        with_split = split is not None and not split_name and "split" in dataset.column_names
        for block in dataset.select_columns(wanted + (["split"] if with_split else [])).iter(batch_size=1000):
            columns = [block[name] for name in wanted]
            for offset, values in enumerate(zip(*columns, strict=True)):
                number += 1
                if not with_split or block["split"][offset] == split:
                    yield f"{where} {number}", list(values)


def _of(split: str | None) -> Chosen | None:
    return None if split is None else split.__eq__


def _of_pool(rows: Iterable[Rows]) -> Chosen:
    """A row is wanted if its number within its split is; called for every row in turn."""
    wanted = {each.split: each for each in rows}
    seen: Counter[str] = Counter()

    def chosen(split: str) -> bool:
        number, each = seen[split], wanted.get(split)
        seen[split] += 1
        return each is not None and each.start <= number and (each.stop is None or number < each.stop)

    return chosen


def _benchmark_file(
    benchmark: Benchmark, folder: str, wanted: list[str], split: str | None, pool: bool
) -> Iterator[Row]:
    path = Path(folder, f"{benchmark.name}.tsv")
    if not path.is_file():
        raise InputError(f"data.dir: {folder} holds no {benchmark.name}.tsv; drop it there, or leave data.dir out")
    chosen = _of_pool(benchmark.pool) if pool and benchmark.pool and split is None else _of(split)
    return _table(path, _unquoted(path), [(name, name) for name in wanted], chosen)


def _hub_benchmark(benchmark: Benchmark, wanted: list[str], split: str | None, pool: bool) -> Iterator[Row]:
    names = [(benchmark.columns.get(name, name), name) for name in wanted]
    hub_split = benchmark.hub_splits.get(split, split) if split is not None else None
    loaded = load_set(benchmark.repository, benchmark.configuration)
    if benchmark.dev is not None and split == benchmark.dev.split and hub_split not in loaded:
        raise InputError(
            f"{benchmark.name}: the set on the Hub ({benchmark.repository}) has no dev rows; name a folder with "
            f"{benchmark.name}.tsv as data.dir, or choose another set as data.dev"
        )
    rows = (benchmark.hub_pool or benchmark.pool) if pool and split is None else ()
    chosen = [(benchmark.hub_splits.get(each.split, each.split), each) for each in rows]
    if not chosen:
        found = _datasets(benchmark.repository, loaded, names, hub_split)
    else:
        found = chain.from_iterable(
            islice(_datasets(benchmark.repository, loaded, names, name), each.start, each.stop)
            for name, each in chosen
            if name in loaded
        )
    for place, values in found:
        if len(values) == 3 and benchmark.positive is not None:
            values[2] = float(values[2] == benchmark.positive)
        yield place, values
