"""Quotes in a .tsv: those of a sentence, or those that a CSV writer put around a cell.

Benchmark files have no quoting: a sentence may begin with a quote that nothing closes. Pandas and spreadsheets quote a
cell that holds a quote, a tab or a line break, and double the quotes inside it. Excel quotes commas too.
"""

from __future__ import annotations

import re
from itertools import dropwhile
from pathlib import Path

from te_trainer.data.compression import raw_lines

BOM = b"\xef\xbb\xbf"
QUOTED = rb'"(?:[^"]|"")*"'
PLAIN = rb'[^"\t\r\n]*'
RECORD = re.compile(rb"(?:%b|%b)(?:\t(?:%b|%b))*\r?\n?" % (QUOTED, PLAIN, QUOTED, PLAIN))
QUOTED_CELL = re.compile(QUOTED)
LONGEST_RECORD = 131_072  # bytes; no CSV writer made a longer record with an open quote
NEEDS_QUOTES = re.compile(rb'""|[\t\n\r]')  # inside a cell


def count_csv_quoted(path: Path) -> int:
    """Count the cells that a CSV writer quoted; 0 where quotes belong to the sentences.

    A CSV writer made the file if every cell that holds a quote begins and ends with one and doubles those inside, each
    line with quotes has as many columns as the first line, and some cell needed its quotes (or the header is quoted).
    Excel made it if the cells that hold a comma are those that are quoted.
    """
    quoted, needed, width, commas_alone = 0, False, 0, True
    lines = dropwhile(lambda line: not line.removeprefix(BOM).strip(), raw_lines(path))
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(BOM)
        # the first line of a file for annotators is a guideline, and has one column
        if b'"' not in line and (number > 1 or line.startswith(b"# ")):
            commas_alone = commas_alone and (number == 1 or b"," not in line)
            continue
        # with an odd number of quotes a cell goes on in the next line
        while line.count(b'"') % 2 and len(line) < LONGEST_RECORD:
            following = next(lines, b"")
            if not following:
                return 0
            line += following
        if not RECORD.fullmatch(line):
            return 0
        cells = QUOTED_CELL.findall(line)
        plain = QUOTED_CELL.sub(b"", line)
        commas_alone = commas_alone and b"," not in plain and all(b"," in cell for cell in cells)
        columns = plain.count(b"\t") + 1
        width = width or columns
        if columns != width:
            return 0
        quoted += len(cells)
        needed = needed or any(number == 1 or NEEDS_QUOTES.search(cell, 1, len(cell) - 1) for cell in cells)
    return quoted if needed or commas_alone else 0


def looks_quoted(cell: str) -> bool:
    """Whether a text begins and ends with a quote and has only doubled ones inside, at least one pair of them."""
    inside = cell[1:-1]
    return cell[:1] == cell[-1:] == '"' and '""' in inside and '"' not in inside.replace('""', "")
