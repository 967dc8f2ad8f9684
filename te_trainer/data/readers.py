"""Rows of every source that a pool, sentences or a gold set may be read from, each with the place it stands at.

A reader never holds a file: ten million pairs pass through it block by block. A new file format is a function that
gives rows, and an entry in `_READERS`.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from te_trainer.config.names import is_file, is_folder
from te_trainer.data.benchmarks import BENCHMARKS, Benchmark, Rows
from te_trainer.data.compression import file_format, raw_lines, strip_compression
from te_trainer.data.hub_sets import load_set, split_set
from te_trainer.data.quoting import count_csv_quoted, looks_quoted
from te_trainer.data.remote import address_format, failure, is_address, open_lines, open_parquet
from te_trainer.errors import InputError, MissingColumnError, first_line
from te_trainer.files.disk_errors import DISK_ERRORS, source_errors_as_input_error

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SEP_LINE = re.compile(r"sep=.?")  # Excel's; the delimiter itself ends a cell
# white space, and what takes no place: soft hyphens, zero-width spaces and joiners, marks of order and of direction
INVISIBLE = re.compile(r"[\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*")
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
LONGEST_CELL = 1 << 24  # characters of a cell of a table; what a quote that nothing closes takes in

Row = tuple[str, list[Any]]  # (place, e.g. "pairs.tsv, line 7"; the values of the wanted columns)


def read_rows(
    source: str,
    wanted: Sequence[str],
    columns: Mapping[str, str] | None = None,
    folder: str | None = None,
    split: str | Rows | None = None,
    notes: list[str] | None = None,
    pool: bool = False,
    others: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a source.

    Args:
        source: A file, a saved Dataset folder, a benchmark's name, a Hub id, or an address.
        wanted: Names of the columns to give, e.g. `["sentence1", "sentence2"]`. Of a `.txt` file, one name stands for
            all sentences of a line.
        columns: Maps wanted names to the source's names. A source without the mapped column is read by the wanted name
            itself, so that one mapping serves a pool and gold sets whose columns are named otherwise.
        folder: Folder that holds benchmark sets as `NAME.tsv`; without it they come from the Hub.
        split: Give only rows of this split, or of these rows of it, where the source has splits.
        notes: Receives a line for each thing that was done to the rows, once all are read.
        pool: Of a benchmark, give only the rows that belong to the paper's pool.
        others: Give, after the wanted values, a dict of the row's other columns.

    Raises:
        InputError: The source cannot be read, a column is missing, or a row is broken.
    """
    rows = (Rows(split) if isinstance(split, str) else split,) if split else ()
    request = _Request(tuple(wanted), columns or {}, rows, [] if notes is None else notes, others)
    with source_errors_as_input_error(source):
        yield from _rows(source, request, folder, pool)


def _rows(source: str, request: _Request, folder: str | None, pool: bool) -> Iterator[Row]:
    path = Path(source)
    if benchmark := find_benchmark(source):
        return _benchmark(benchmark, request, folder, pool)
    if is_address(source):
        return _address(source, request)
    if path.is_dir():
        return _saved_dataset(path, request)
    if reader := _READERS.get(file_format(path)):
        if not path.is_file():
            raise InputError(f"{source}: the file does not exist")
        if reader is _parquet and path != strip_compression(path):
            raise InputError(f"{source}: Parquet is compressed inside; unpack the file")
        return reader(path, request)
    if path.exists():
        known = f"known are {', '.join(FILE_SUFFIXES)}, and files of lines with .gz, .bz2 or .xz behind it"
        plain = strip_compression(path)
        if not plain.suffix:
            example = f"{plain.name}.tsv{path.suffix}"
            raise InputError(f"{source}: the name does not tell the format; rename the file, e.g. {example}; {known}")
        raise InputError(f"{source}: the format '{plain.suffix}' is not known; {known}")
    if hub_set := split_set(source):
        return _datasets(source, load_set(*hub_set), request)
    raise InputError(f"{source}: no such file, folder, benchmark ({', '.join(BENCHMARKS)}) or Hub id (owner/name)")


def dataset_rows(source: str, dataset: Any, wanted: Sequence[str], columns: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of a Dataset in memory, which errors call `source`, as `read_rows` does those of a source."""
    return _dataset(source, dataset, _Request(tuple(wanted), columns))


def as_texts(place: str, values: Iterable[Any]) -> list[str]:
    """Values of a row as texts without white space around them; one that is missing or invisible is empty."""
    texts = ["" if value is None else value for value in values]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{place}: a sentence is not text; correct or remove the row")
    return ["" if INVISIBLE.fullmatch(text) else text.strip() for text in texts]


def find_benchmark(source: str) -> Benchmark | None:
    """The benchmark that a source names; None for others, and where a file or a saved Dataset has the name."""
    benchmark = BENCHMARKS.get(source)
    return None if benchmark and is_here(source) else benchmark


def is_here(source: str | Path) -> bool:
    """Whether a source is a file or a saved Dataset of this machine; an output folder may have its name, too."""
    return is_file(source) or _is_saved_dataset(source)


def _is_saved_dataset(folder: str | Path) -> bool:
    return any(is_file(Path(folder, name)) for name in ("state.json", "dataset_dict.json"))


def source_path(source: str, folder: str | None) -> Path | None:
    """The file or saved Dataset that a source is, or a benchmark's file; None for what is not on this machine."""
    path = Path(source)
    if folder is not None and find_benchmark(source):
        path = Path(folder, f"{source}.tsv")
    return path if is_here(path) else None


def repository_of(source: str, folder: str | None) -> tuple[str, str | None] | None:
    """The Hub's repository and the revision that `read_rows` reads a source from; None for a local source."""
    if benchmark := find_benchmark(source):
        return (benchmark.repository, None) if folder is None else None
    if is_address(source) or file_format(Path(source)) in FILE_SUFFIXES or is_file(source) or is_folder(source):
        return None
    hub_set = split_set(source)
    return (hub_set[0], hub_set[2]) if hub_set else None


@dataclass(frozen=True)
class _Request:
    """What a reader is asked for; no `rows` stands for all of them."""

    wanted: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Rows, ...] = ()
    notes: list[str] = field(default_factory=list)
    others: bool = False
    mend: str = "map it with data.columns"  # of a column that the source lacks

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
        return MissingColumnError(f"{source}: no column '{name}' among {', '.join(present)[:500]}; {self.mend}")

    def find_others(self, source: str, present: Iterable[str], found: Sequence[str]) -> list[str]:
        """The source's other columns, if they are asked for; what has no name is none."""
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


# ---------------------------------------------------------------- files of lines


def _read_lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends."""
    return _decoded(str(path), raw_lines(path))


def _decoded(source: str, lines: Iterable[bytes]) -> Iterator[str]:
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source}, line {number}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
            ) from None
        if "\0" in line:
            raise InputError(f"{source}, line {number}: a NUL byte; the file is damaged, or not saved as UTF-8")
        yield line


def _note_quotes(path: Path, rows: Iterator[Row], notes: list[str]) -> Iterator[Row]:
    """Pass rows on, and note at their end how many cells look as if a CSV writer had quoted them."""
    quoted = 0
    for place, values in rows:
        quoted += sum(looks_quoted(value) for value in values if isinstance(value, str))
        yield place, values
    if quoted:
        notes.append(
            f"{path}: {quoted:,} sentences begin and end with a quote and double those inside, as CSV writers do; they "
            "were left as they stand"
        )


def _txt(path: Path, request: _Request) -> Iterator[Row]:
    if len(request.wanted) > 2:
        name = request.columns.get(request.wanted[-1], request.wanted[-1])
        raise InputError(f"{path}: a .txt file has no column '{name}'; give gold scores as .tsv, .csv or .jsonl")

    def rows() -> Iterator[Row]:
        for number, line in enumerate(_read_lines(path), 1):
            line = line.rstrip("\r\n")
            if "\r" in line:
                raise InputError(f"{path}, line {number}: a carriage return in the middle; end lines with a line feed")
            values = line.split("||") if line.strip() else [""] * len(request.wanted)
            if len(request.wanted) == 2 and len(values) != 2:
                wrong = "no second sentence" if len(values) == 1 else f"{len(values)} sentences"
                raise InputError(f"{path}, line {number}: {wrong}; a line is written sentence1||sentence2")
            yield f"{path}, line {number}", request.row(list(values), {})

    return _note_quotes(path, rows(), request.notes)


def _separated(path: Path, request: _Request) -> Iterator[Row]:
    expected = "\t" if file_format(path) == ".tsv" else ","
    delimiter = _find_delimiter(path, request, expected)
    if delimiter != expected:
        request.notes.append(f"{path}: its columns are separated by {DELIMITERS[delimiter]}")
    if delimiter == "\t":
        quoted = count_csv_quoted(path)
        if not quoted:
            return _note_quotes(path, _unquoted_tsv(path, request), request.notes)
        request.notes.append(f"{path}: {quoted:,} cells were quoted as CSV writers do; their quotes were taken off")
    return _table(path, request, delimiter=delimiter, strict=True)


def _unquoted_tsv(path: Path, request: _Request) -> Iterator[Row]:
    return _table(path, request, delimiter="\t", quoting=csv.QUOTE_NONE)


def _find_delimiter(path: Path, request: _Request, expected: str) -> str:
    """What separates the columns: the expected delimiter, unless another one alone finds the wanted columns."""
    headers = {}
    for delimiter in (expected, *DELIMITERS):
        try:
            headers[delimiter] = _read_header(csv.reader(_read_lines(path), delimiter=delimiter)) or []
            request.find_columns(str(path), headers[delimiter])
        except (InputError, csv.Error):
            continue
        return delimiter
    # the error should name the columns that are there
    several = [delimiter for delimiter, header in headers.items() if len(header) > 1]
    return several[0] if several else expected


def _read_header(reader: Iterator[list[str]]) -> list[str] | None:
    """The names of the columns, behind blank lines, guidelines and Excel's line that names the delimiter."""
    for row in reader:
        line = "".join(row)
        if INVISIBLE.fullmatch(line):
            continue
        # spreadsheets give each line as many cells as the widest
        is_guideline = line.startswith("# ") and line == row[0]
        if not is_guideline and not SEP_LINE.fullmatch(line):
            return [name.strip() for name in row]
    return None


def _table(path: Path, request: _Request, *, delimiter: str, **dialect: Any) -> Iterator[Row]:
    reader = csv.reader(_read_lines(path), delimiter=delimiter, **dialect)
    is_wanted, last = request.chooser(), 0
    csv.field_size_limit(LONGEST_CELL)
    try:
        header = _read_header(reader)
        last = reader.line_num
        if header is None:
            raise InputError(f"{path}: the file is empty; its first line must name the columns")
        try:
            found = request.find_columns(str(path), header)
        except MissingColumnError as error:
            # no name of a column has so many words
            if not any(len(name.split()) > 4 for name in header):
                raise
            above = "if its first line is a pair already, write a line with the columns' names above it"
            raise MissingColumnError(f"{error} ({above})") from None
        positions = [header.index(name) for name in found]
        others = {name: header.index(name) for name in request.find_others(str(path), header, found)}
        split = header.index("split") if request.rows and "split" in header else None
        for row in reader:
            last = reader.line_num
            place = f"{path}, line {last}"
            if not any(cell.strip() for cell in row):
                if split is None:
                    yield place, request.row([""] * len(positions), {})
                continue
            if len(row) != len(header):
                raise InputError(f"{place}: {len(row)} columns where the header has {len(header)}; correct the row")
            if split is None or is_wanted(row[split]):
                values = [row[position] for position in positions]
                yield place, request.row(values, {name: row[position] for name, position in others.items()})
    except csv.Error as error:
        carriage_return = str(error).startswith("new-line character")
        fault = "a carriage return in the middle" if carriage_return else f"quotes or a long cell break it ({error})"
        # an open quote takes in all lines behind it
        lines = f"line {last + 1}" if reader.line_num <= last + 1 else f"lines {last + 1} to {reader.line_num}"
        raise InputError(f"{path}, {lines}: {fault}; correct the row") from None


def _jsonl(path: Path, request: _Request) -> Iterator[Row]:
    return _json_rows(str(path), _read_lines(path), request)


def _json_rows(source: str, lines: Iterable[str], request: _Request) -> Iterator[Row]:
    columns: list[str] = []
    is_wanted = request.chooser()
    for number, line in enumerate(lines, 1):
        place = f"{source}, line {number}"
        if not line.strip():
            if not request.rows:
                yield place, request.row([""] * len(request.wanted), {})
            continue
        row = _parse_json(place, line)
        columns = columns or request.find_columns(place, row)
        for column in columns:
            if column not in row:
                raise request.no_column(place, column, row)
        if request.rows and "split" in row and not is_wanted(row["split"]):
            continue
        values = [row[column] for column in columns]
        if any(isinstance(value, str) and LONE_SURROGATE.search(value) for value in values):
            raise InputError(f"{place}: half a character (a lone surrogate); correct or remove the row")
        yield place, request.row(values, {name: value for name, value in row.items() if name and name not in columns})


def _parse_json(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({getattr(error, 'msg', error)}); a line is one object") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: a {type(row).__name__} where an object is expected")
    return row


# ---------------------------------------------------------------- Arrow: Parquet files, saved and Hub data sets


def _arrow_rows(
    source: str, unit: str, names: Sequence[str], blocks: Callable[[list[str]], Iterable[Any]], request: _Request
) -> Iterator[Row]:
    """Rows of the record batches or tables that `blocks` gives of some columns; `names` are those of all columns."""
    columns, is_wanted, number = request.find_columns(source, names), request.chooser(), 0
    others = request.find_others(source, names, columns)
    split = ["split"] if request.rows and "split" in names else []
    chosen, width = [*columns, *others, *split], len(columns)
    for block in blocks(list(dict.fromkeys(chosen))):
        try:
            values = [block.column(name).to_pylist() for name in chosen]
        except UnicodeDecodeError:
            rows = f"{unit}s {number + 1} to {number + len(block)}"
            raise InputError(f"{source}, {rows}: not UTF-8; save them anew") from None
        except (OverflowError, ValueError) as error:  # a date behind the year 9999
            rows = f"{unit}s {number + 1} to {number + len(block)}"
            raise InputError(
                f"{source}, {rows}: Python cannot hold a value of a column ({first_line(error)}); correct it, or leave "
                "other columns out with --data.keep false"
            ) from None
        for row in zip(*values, strict=True):
            number += 1
            if not split or is_wanted(row[-1]):
                rest = dict(zip(others, row[width : width + len(others)], strict=True))
                yield f"{source}, {unit} {number}", request.row(list(row[:width]), rest)


def _parquet(path: Path, request: _Request) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        yield from _arrow_rows(str(path), "row", names, lambda columns: file.iter_batches(columns=columns), request)
    except (pyarrow.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        reason = "".join(filter(str.isprintable, first_line(error))).rstrip(".: ")
        raise InputError(f"{path}: not a Parquet file, or a damaged one ({reason}); save it anew") from None


def _saved_dataset(path: Path, request: _Request) -> Iterator[Row]:
    from datasets import load_from_disk

    if not _is_saved_dataset(path):
        next(path.iterdir(), None)  # who may not look into it is told so
        raise InputError(f"{path}: the folder is no Dataset saved with save_to_disk; name a file in it")
    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds for files that are gone, cut or changed
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise InputError(f"{path}: the saved Dataset is damaged ({first_line(error)}); save it anew") from None
    return _datasets(str(path), loaded, request) if isinstance(loaded, dict) else _dataset(str(path), loaded, request)


def _dataset(source: str, dataset: Any, request: _Request, unit: str = "row") -> Iterator[Row]:
    def blocks(columns: list[str]) -> Iterable[Any]:
        return dataset.select_columns(columns).with_format("arrow").iter(batch_size=1000)  # type: ignore[no-any-return]

    return _arrow_rows(source, unit, dataset.column_names, blocks, request)


def _address(source: str, request: _Request) -> Iterator[Row]:
    try:
        if address_format(source) == ".parquet":
            yield from _dataset(source, open_parquet(source), request)
        else:
            for file, lines in open_lines(source):
                yield from _json_rows(file, _decoded(file, lines), request)
    except InputError:
        raise
    except Exception as error:  # of the file systems, the network, or a file that is none of its kind
        raise InputError(f"{source}: not to be had from this address ({failure(error, source)})") from None


def _datasets(source: str, splits: Mapping[str, Any], request: _Request) -> Iterator[Row]:
    """Rows of data sets by split."""
    renamed = {} if "dev" in splits else {"dev": "validation"}
    chosen = [replace(each, split=renamed.get(each.split, each.split)) for each in request.rows]
    present = [each for each in chosen or map(Rows, splits) if each.split in splits]
    if not present:
        raise InputError(
            f"{source}: no split '{request.rows[0].split}' among {', '.join(splits)}; choose another set (or a folder "
            "with the benchmark's NAME.tsv as data.dir)"
        )
    for each in present:
        rows = _dataset(source, splits[each.split], replace(request, rows=()), f"{each.split} row")
        yield from islice(rows, each.start, each.stop)


def _benchmark(benchmark: Benchmark, request: _Request, folder: str | None, pool: bool) -> Iterator[Row]:
    if folder is not None:
        path = Path(folder, f"{benchmark.name}.tsv")
        if not path.is_file():
            raise InputError(f"data.dir: {folder} holds no {benchmark.name}.tsv; drop it there, or leave data.dir out")
        rows = request.rows or (benchmark.pool if pool else ())
        mend = "a benchmark's file in data.dir has the columns split, score, sentence1, sentence2"
        yield from _unquoted_tsv(path, replace(request, columns={}, rows=rows, mend=mend))
        return
    rows = request.rows or ((benchmark.hub_pool or benchmark.pool) if pool else ())
    rows = tuple(replace(each, split=benchmark.hub_splits.get(each.split, each.split)) for each in rows)
    splits = load_set(benchmark.repository, benchmark.configuration)
    for place, values in _datasets(
        benchmark.repository, splits, replace(request, columns=benchmark.columns, rows=rows)
    ):
        if benchmark.positive is not None and "score" in request.wanted:
            score = request.wanted.index("score")
            values[score] = float(values[score] == benchmark.positive)
        yield place, values


_READERS: dict[str, Callable[[Path, _Request], Iterator[Row]]] = {
    ".txt": _txt,
    ".tsv": _separated,
    ".csv": _separated,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
FILE_SUFFIXES = tuple(_READERS)
