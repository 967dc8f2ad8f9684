"""Rows of files of lines: .txt, .tsv, .csv and .jsonl (.ndjson)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from te_trainer.data.compression import file_format, raw_lines
from te_trainer.data.quoting import count_csv_quoted, looks_quoted
from te_trainer.data.request import Request, Row
from te_trainer.data.texts import INVISIBLE, LONE_SURROGATE
from te_trainer.errors import InputError, MissingColumnError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SEP_LINE = re.compile(r"sep=.?")  # Excel's; the delimiter itself ends a cell
LONGEST_CELL = 1 << 24  # characters of a cell of a table; what a quote that nothing closes takes in


def _read_lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends."""
    return decoded(str(path), raw_lines(path))


def decoded(source: str, lines: Iterable[bytes]) -> Iterator[str]:
    """Yield lines of UTF-8 as text, without a byte order mark; errors call them lines of `source`."""
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            found = "UTF-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "not UTF-8"
            raise InputError(
                f"{source}, line {number}: {found} (byte {error.start + 1}); save the file as UTF-8"
            ) from None
        if "\0" in line:
            raise InputError(f"{source}, line {number}: a NUL byte; the file is damaged, or not saved as UTF-8")
        yield line


def _note_quotes(path: Path, rows: Iterator[Row], notes: list[str]) -> Iterator[Row]:
    """Pass rows on, and note at their end how many cells look as if a CSV writer had quoted them."""
    quoted = 0
    for position, values in rows:
        quoted += sum(looks_quoted(value) for value in values if isinstance(value, str))
        yield position, values
    if quoted:
        notes.append(
            f"{path}: {quoted:,} sentences begin and end with a quote and double those inside, as CSV writers do; they "
            "were left as they stand"
        )


def txt_rows(path: Path, request: Request) -> Iterator[Row]:
    """Yield the lines of a .txt file, `sentence1||sentence2`, or one sentence where one is wanted."""
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


def separated_rows(path: Path, request: Request) -> Iterator[Row]:
    """Yield the rows of a .tsv or .csv file, whatever separates its columns."""
    expected = "\t" if file_format(path) == ".tsv" else ","
    delimiter = _find_delimiter(path, request, expected)
    if delimiter != expected:
        request.notes.append(f"{path}: its columns are separated by {DELIMITERS[delimiter]}")
    if delimiter == "\t":
        quoted = count_csv_quoted(path)
        if not quoted:
            return _note_quotes(path, unquoted_tsv_rows(path, request), request.notes)
        request.notes.append(f"{path}: {quoted:,} cells were quoted as CSV writers do; their quotes were taken off")
    return _table(path, request, delimiter=delimiter, strict=True)


def unquoted_tsv_rows(path: Path, request: Request) -> Iterator[Row]:
    """Yield the rows of a .tsv file in which quotes stand for themselves."""
    return _table(path, request, delimiter="\t", quoting=csv.QUOTE_NONE)


def _find_delimiter(path: Path, request: Request, expected: str) -> str:
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
    """The names of the columns, after blank lines, guidelines and Excel's line that names the delimiter."""
    for row in reader:
        line = "".join(row)
        if INVISIBLE.fullmatch(line):
            continue
        # spreadsheets give each line as many cells as the widest
        is_guideline = line.startswith("# ") and line == row[0]
        if not is_guideline and not SEP_LINE.fullmatch(line):
            return [name.strip() for name in row]
    return None


def _table(path: Path, request: Request, *, delimiter: str, **dialect: Any) -> Iterator[Row]:
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
            has_texts = any(len(name.split()) > 4 for name in header)
            known = {*request.wanted, *(request.columns.get(name) for name in request.wanted)}
            if not has_texts and (len(header) != len(request.wanted) or known.intersection(header)):
                raise
            what = "a pair" if len(request.wanted) > 1 else "a text"
            above = f"if its first line is {what} already, write a line with the columns' names above it"
            raise MissingColumnError(f"{error} ({above})") from None
        indices = [header.index(name) for name in found]
        others = {name: header.index(name) for name in request.find_others(str(path), header, found)}
        split = header.index("split") if request.rows and "split" in header else None
        for row in reader:
            last = reader.line_num
            position = f"{path}, line {last}"
            if not any(cell.strip() for cell in row):
                if split is None:
                    yield position, request.row([""] * len(indices), {})
                continue
            if len(row) != len(header):
                raise InputError(f"{position}: {len(row)} columns where the header has {len(header)}; correct the row")
            if split is None or is_wanted(row[split]):
                values = [row[index] for index in indices]
                yield position, request.row(values, {name: row[index] for name, index in others.items()})
    except csv.Error as error:
        carriage_return = str(error).startswith("new-line character")
        fault = "a carriage return in the middle" if carriage_return else f"quotes or a long cell break it ({error})"
        # an open quote takes in all lines after it
        lines = f"line {last + 1}" if reader.line_num <= last + 1 else f"lines {last + 1} to {reader.line_num}"
        raise InputError(f"{path}, {lines}: {fault}; correct the row") from None


def jsonl_rows(path: Path, request: Request) -> Iterator[Row]:
    """Yield the objects of a .jsonl file."""
    return json_rows(str(path), _read_lines(path), request)


def json_rows(source: str, lines: Iterable[str], request: Request) -> Iterator[Row]:
    """Yield JSON objects, one a line; errors call them lines of `source`."""
    columns: list[str] = []
    known: set[str] = set()
    is_wanted = request.chooser()
    for number, line in enumerate(lines, 1):
        position = f"{source}, line {number}"
        if not line.strip():
            if not request.rows:
                yield position, request.row([""] * len(request.wanted), {})
            continue
        row = _parse_json(position, line)
        columns, known = columns or request.find_columns(position, row), known or set(row)
        for column in columns:
            # writers of JSON may leave out what is empty, but a key that the first row does not have may be misspelt
            if column not in row and not known.issuperset(row):
                raise request.no_column(position, column, row)
        if request.rows and "split" in row and not is_wanted(row["split"]):
            continue
        values = [row.get(column) for column in columns]
        if any(isinstance(value, str) and LONE_SURROGATE.search(value) for value in values):
            raise InputError(f"{position}: half a character (a lone surrogate); correct or remove the row")
        others = {name: value for name, value in row.items() if name and name not in columns}
        yield position, request.row(values, others)


def _parse_json(position: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{position}: not JSON ({getattr(error, 'msg', error)}); a line is one object") from None
    if not isinstance(row, dict):
        raise InputError(f"{position}: a {type(row).__name__} where an object is expected; write one object a line")
    return row
