"""Rows of every source that a pool, sentences or a gold set may be read from, each with the place it stands at.

A reader never holds a file: ten million pairs pass through it block by block. A new file format is a function that
gives rows, and an entry in `_READERS`.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from te_trainer.data.arrow_io import SENTENCE_COLUMNS
from te_trainer.data.benchmarks import BENCHMARKS, Benchmark, Rows
from te_trainer.data.hub_sets import load_set, split_set
from te_trainer.data.quoting import count_csv_quoted, looks_quoted
from te_trainer.errors import InputError

LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

Row = tuple[str, list[Any]]  # (place, e.g. "pairs.tsv, line 7"; the values of the wanted columns)


def read_rows(
    source: str,
    wanted: Sequence[str],
    columns: Mapping[str, str] | None = None,
    folder: str | None = None,
    split: str | Rows | None = None,
    notes: list[str] | None = None,
    pool: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a source.

    Args:
        source: A file, a saved Dataset folder, a benchmark's name, or a Hub id.
        wanted: Names of the columns to give, e.g. `["sentence1", "sentence2"]`.
        columns: Maps wanted names to the source's names. A source without the mapped column is read by the wanted name
            itself, so that one mapping serves a pool and gold sets whose columns are named otherwise.
        folder: Folder that holds benchmark sets as `NAME.tsv`; without it they come from the Hub.
        split: Give only rows of this split, or of these rows of it, where the source has splits.
        notes: Receives a line for each thing that was done to the rows, once all are read.
        pool: Of a benchmark, give only the rows that belong to the paper's pool.

    Raises:
        InputError: The source cannot be read, a column is missing, or a row is broken.
    """
    if isinstance(split, str):
        split = Rows(split)
    request = _Request(tuple(wanted), columns or {}, (split,) if split else (), [] if notes is None else notes)
    path = Path(source)
    if benchmark := find_benchmark(source):
        return _benchmark(benchmark, request, folder, pool)
    if path.is_dir():
        return _saved_dataset(path, request)
    if reader := _READERS.get(path.suffix.lower()):
        if not path.is_file():
            raise InputError(f"{source}: the file does not exist")
        return reader(path, request)
    if path.exists():
        raise InputError(f"{source}: the format '{path.suffix}' is not known; known are {', '.join(FILE_SUFFIXES)}")
    if hub_set := split_set(source):
        return _datasets(source, load_set(*hub_set), request)
    raise InputError(f"{source}: no such file, folder, benchmark ({', '.join(BENCHMARKS)}) or Hub id (owner/name)")


def read_texts(
    source: str,
    columns: Mapping[str, str] | None = None,
    folder: str | None = None,
    split: str | None = None,
    notes: list[str] | None = None,
    *,
    wanted: Sequence[str] = SENTENCE_COLUMNS,
    pool: bool = False,
) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of a source as texts without white space around them; a missing text is empty.

    Args:
        As for `read_rows`.

    Raises:
        InputError: As for `read_rows`, or a value is not a text.
    """
    return _as_texts(read_rows(source, wanted, columns, folder, split, notes, pool))


def read_lines(source: str, notes: list[str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a `.txt` file, each with the sentences that `||` separates.

    Raises:
        InputError: There is no such file, or a line is not UTF-8.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{source}: the file does not exist")
    return _as_texts(_note_quotes(path, _split_lines(path), [] if notes is None else notes))


def find_benchmark(source: str) -> Benchmark | None:
    """The benchmark that a source names; None for others, and where a file or folder has the name."""
    return None if Path(source).exists() else BENCHMARKS.get(source)


def source_file(source: str, folder: str | None) -> Path | None:
    """The file that a source is, or that holds a benchmark in a folder; None for what is no file."""
    path = Path(source)
    if folder is not None and find_benchmark(source):
        path = Path(folder, f"{source}.tsv")
    return path if path.is_file() else None


def repository_of(source: str, folder: str | None) -> tuple[str, str | None] | None:
    """The Hub's repository and the revision that `read_rows` reads a source from; None for a local source."""
    if benchmark := find_benchmark(source):
        return (benchmark.repository, None) if folder is None else None
    path = Path(source)
    hub_set = None if path.exists() or path.suffix.lower() in FILE_SUFFIXES else split_set(source)
    return (hub_set[0], hub_set[2]) if hub_set else None


@dataclass(frozen=True)
class _Request:
    """What a reader is asked for; no `rows` stands for all of them."""

    wanted: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Rows, ...] = ()
    notes: list[str] = field(default_factory=list)

    def find_columns(self, source: str, present: Iterable[str]) -> list[str]:
        """The source's column for each wanted name."""
        present = list(present)
        found: list[str] = []
        for name in self.wanted:
            mapped = self.columns.get(name, name)
            column = mapped if mapped in present else name
            others = [self.columns.get(other, other) for other in self.wanted]
            if column not in present or (column != mapped and column in others):
                raise _no_column(source, mapped, present)
            if present.count(column) > 1:
                raise InputError(f"{source}: {present.count(column)} columns are named '{column}'; rename all but one")
            if column in found:
                raise InputError(
                    f"{source}: {self.wanted[found.index(column)]} and {name} would both be read from the column "
                    f"'{column}'; map each to a column of its own with data.columns"
                )
            found.append(column)
        return found

    def chooser(self) -> Callable[[str], bool]:
        """A function that says whether a row is wanted by its split; it must see every row of a source in turn."""
        rows = {each.split: each for each in self.rows}
        seen: Counter[str] = Counter()

        def is_wanted(split: str) -> bool:
            number, each = seen[split], rows.get(split)
            seen[split] += 1
            return each is not None and each.start <= number and (each.stop is None or number < each.stop)

        return is_wanted


def _as_texts(rows: Iterator[Row]) -> Iterator[tuple[str, list[str]]]:
    for place, values in rows:
        texts = ["" if value is None else value for value in values]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f"{place}: a sentence is not text; correct or remove the row")
        yield place, [text.strip() for text in texts]


# ---------------------------------------------------------------- files of lines


def _read_lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends."""
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


def _note_quotes(path: Path, rows: Iterator[Row], notes: list[str]) -> Iterator[Row]:
    """Pass rows on, and note at their end how many cells look as if a CSV writer had quoted them."""
    quoted = 0
    for place, values in rows:
        quoted += sum(map(looks_quoted, values))
        yield place, values
    if quoted:
        notes.append(
            f"{path}: {quoted:,} sentences begin and end with a quote and double those inside, as CSV writers do; they "
            "were left as they stand"
        )


def _split_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_read_lines(path), 1):
        yield f"{path}, line {number}", list(line.rstrip("\r\n").split("||"))


def _txt(path: Path, request: _Request) -> Iterator[Row]:
    if len(request.wanted) != 2:
        name = request.columns.get(request.wanted[-1], request.wanted[-1])
        raise InputError(f"{path}: a .txt file has no column '{name}'; give gold scores as .tsv, .csv or .jsonl")

    def pairs() -> Iterator[Row]:
        for place, values in _split_lines(path):
            if not any(value.strip() for value in values) and len(values) == 1:
                values = ["", ""]
            if len(values) != 2:
                found = "no second sentence" if len(values) == 1 else f"{len(values)} sentences"
                raise InputError(f"{place}: {found}; a line is written sentence1||sentence2")
            yield place, values

    return _note_quotes(path, pairs(), request.notes)


def _tsv(path: Path, request: _Request) -> Iterator[Row]:
    quoted = count_csv_quoted(path)
    if not quoted:
        return _note_quotes(path, _unquoted_tsv(path, request), request.notes)
    request.notes.append(f"{path}: {quoted:,} cells were quoted as CSV writers do; their quotes were taken off")
    return _table(path, request, delimiter="\t", strict=True)


def _unquoted_tsv(path: Path, request: _Request) -> Iterator[Row]:
    return _table(path, request, delimiter="\t", quoting=csv.QUOTE_NONE)


def _csv(path: Path, request: _Request) -> Iterator[Row]:
    return _table(path, request, delimiter=",", strict=True)


def _table(path: Path, request: _Request, *, delimiter: str, **dialect: Any) -> Iterator[Row]:
    reader = csv.reader(_read_lines(path), delimiter=delimiter, **dialect)
    is_wanted = request.chooser()
    try:
        header = next(reader, None)
        while header is not None and len(header) == 1 and header[0].startswith("# "):  # a guideline for annotators
            header = next(reader, None)
        if header is None:
            raise InputError(f"{path}: the file is empty; its first line must name the columns")
        header = [name.strip() for name in header]
        _refuse_other_delimiter(path, header, delimiter)
        positions = [header.index(name) for name in request.find_columns(str(path), header)]
        split = header.index("split") if request.rows and "split" in header else None
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                yield place, [""] * len(positions)
                continue
            if len(row) != len(header):
                raise InputError(f"{place}: {len(row)} columns where the header has {len(header)}; correct the row")
            if split is None or is_wanted(row[split]):
                yield place, [row[position] for position in positions]
    except csv.Error as error:
        in_header = ", or save the file with commas between its columns" if reader.line_num == 1 else ""
        fault = _describe_csv_error(str(error))
        raise InputError(f"{path}, line {reader.line_num}: {fault}; correct the row{in_header}") from None


def _refuse_other_delimiter(path: Path, header: list[str], delimiter: str) -> None:
    line = header[0].casefold()
    excel = line.startswith("sep=")
    names = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
    for other, name in names.items():
        if len(header) == 1 and other != delimiter and (other in line or (excel and line[4:5] == other)):
            suffix = {"\t": ", or as .tsv", ",": ", or as .csv"}.get(other, "")
            raise InputError(
                f"{path}: {name} separate the columns, where {names[delimiter]} are expected; save the file with "
                f"{names[delimiter]}{suffix}"
            )
    if excel:
        raise InputError(f"{path}: the first line is '{header[0]}', not the names of the columns; remove the line")


def _describe_csv_error(error: str) -> str:
    """What the csv module means; it has one class of errors for all."""
    if error.startswith("new-line character"):
        return "a carriage return in the middle of the line"
    if error.startswith("field larger"):
        return f"a cell of more than {csv.field_size_limit():,} characters, or a quote that is never closed"
    return f"broken quoting ({error})"


def _no_column(source: str, name: str, present: Iterable[str]) -> InputError:
    names = ", ".join(present)
    return InputError(
        f"{source}: no column '{name}' among {names if len(names) < 500 else f'{names[:500]} …'}; map it with "
        "data.columns"
    )


def _jsonl(path: Path, request: _Request) -> Iterator[Row]:
    columns: list[str] = []
    is_wanted = request.chooser()
    for number, line in enumerate(_read_lines(path), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            yield place, [""] * len(request.wanted)
            continue
        row = _parse_json(place, line)
        columns = columns or request.find_columns(place, row)
        for column in columns:
            if column not in row:
                raise _no_column(place, column, row)
        if request.rows and "split" in row and not is_wanted(row["split"]):
            continue
        values = [row[column] for column in columns]
        if any(isinstance(value, str) and LONE_SURROGATE.search(value) for value in values):
            raise InputError(f"{place}: half a character (a lone surrogate); correct or remove the row")
        yield place, values


def _parse_json(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg}); a line is one object") from None
    except RecursionError:
        raise InputError(f"{place}: lists or objects too deep inside one another; correct or remove the row") from None
    except ValueError:
        most = sys.get_int_max_str_digits()
        raise InputError(f"{place}: a number of more than {most:,} digits; correct or remove the row") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: a {type(row).__name__} where an object is expected")
    return row


# ---------------------------------------------------------------- Arrow: Parquet files, saved and Hub data sets


def _arrow_rows(
    where: str, blocks: Iterable[Any], request: _Request, columns: list[str], by_split: bool
) -> Iterator[Row]:
    """Rows of record batches or tables; `by_split` says whether they have a column `split` to choose by."""
    is_wanted = request.chooser()
    number = 0
    for block in blocks:
        try:
            values = [block.column(name).to_pylist() for name in columns]
        except UnicodeDecodeError:
            raise InputError(f"{where}s {number + 1} to {number + len(block)}: not UTF-8; save them anew") from None
        splits = block.column("split").to_pylist() if by_split else None
        for offset, row in enumerate(zip(*values, strict=True)):
            number += 1
            if splits is None or is_wanted(splits[offset]):
                yield f"{where} {number}", list(row)


def _parquet(path: Path, request: _Request) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a Parquet file ({_first_line(error)}); save it anew") from None
    columns = request.find_columns(str(path), file.schema_arrow.names)
    by_split = bool(request.rows) and "split" in file.schema_arrow.names

    def blocks() -> Iterator[Any]:
        try:
            yield from file.iter_batches(columns=columns + ["split"] * by_split)
        except OSError as error:  # pyarrow cannot decode a page
            raise InputError(f"{path}: the file is damaged ({_first_line(error)}); save it anew") from None

    return _arrow_rows(f"{path}, row", blocks(), request, columns, by_split)


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "".join(character for character in line if character.isprintable()).rstrip(".: ")


def _saved_dataset(path: Path, request: _Request) -> Iterator[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except (FileNotFoundError, ValueError):
        raise InputError(f"{path}: the folder is no Dataset saved with save_to_disk; name a file in it") from None
    return _datasets(str(path), loaded if isinstance(loaded, DatasetDict) else {"": loaded}, request)


def _datasets(source: str, splits: Mapping[str, Any], request: _Request) -> Iterator[Row]:
    """Rows of data sets by split; a data set without splits has the empty name."""
    if "" in splits:
        by_split = bool(request.rows) and "split" in splits[""].column_names
        return _dataset(source, f"{source}, row", splits[""], request, by_split)
    if not request.rows:
        chosen = [Rows(name) for name in splits]
    else:
        dev = "dev" if "dev" in splits else "validation"
        chosen = [replace(each, split=dev) if each.split == "dev" else each for each in request.rows]
    present = [each for each in chosen if each.split in splits]
    if not present:
        raise InputError(f"{source}: no split '{request.rows[0].split}' among {', '.join(splits)}")
    return chain.from_iterable(
        islice(
            _dataset(source, f"{source}, {each.split} row", splits[each.split], request, by_split=False),
            each.start,
            each.stop,
        )
        for each in present
    )


def _dataset(source: str, where: str, dataset: Any, request: _Request, by_split: bool) -> Iterator[Row]:
    columns = request.find_columns(source, dataset.column_names)
    blocks = dataset.select_columns(columns + ["split"] * by_split).with_format("arrow").iter(batch_size=1000)
    return _arrow_rows(where, blocks, request, columns, by_split)


def _benchmark(benchmark: Benchmark, request: _Request, folder: str | None, pool: bool) -> Iterator[Row]:
    if folder is None:
        return _hub_benchmark(benchmark, request, pool)
    path = Path(folder, f"{benchmark.name}.tsv")
    if not path.is_file():
        raise InputError(f"data.dir: {folder} holds no {benchmark.name}.tsv; drop it there, or leave data.dir out")
    rows = request.rows or (benchmark.pool if pool else ())
    return _unquoted_tsv(path, replace(request, columns={}, rows=rows))


def _hub_benchmark(benchmark: Benchmark, request: _Request, pool: bool) -> Iterator[Row]:
    splits = load_set(benchmark.repository, benchmark.configuration)
    rows = request.rows or ((benchmark.hub_pool or benchmark.pool) if pool else ())
    rows = tuple(replace(each, split=benchmark.hub_splits.get(each.split, each.split)) for each in rows)
    if benchmark.dev is not None and request.rows == (benchmark.dev,) and rows[0].split not in splits:
        raise InputError(
            f"{benchmark.name}: the set on the Hub ({benchmark.repository}) has no dev rows; name a folder with "
            f"{benchmark.name}.tsv as data.dir, or choose another set as data.dev"
        )
    for place, values in _datasets(
        benchmark.repository, splits, replace(request, columns=benchmark.columns, rows=rows)
    ):
        if benchmark.positive is not None and "score" in request.wanted:
            score = request.wanted.index("score")
            values[score] = float(values[score] == benchmark.positive)
        yield place, values


_READERS: dict[str, Callable[[Path, _Request], Iterator[Row]]] = {
    ".txt": _txt,
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
FILE_SUFFIXES = tuple(_READERS)
