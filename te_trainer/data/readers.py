"""Rows of every source that a pool, sentences or a gold set may be read from, each with its position.

A reader never holds a file: ten million pairs pass through it block by block. A new file format is a function that
gives rows (`line_rows.py`, `arrow_rows.py`), and an entry in `_READERS`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from te_trainer.config.names import is_file, is_folder
from te_trainer.data.arrow_rows import dataset_rows, is_saved_dataset, parquet_rows, saved_dataset_rows, split_rows
from te_trainer.data.benchmarks import BENCHMARKS, Benchmark, Rows
from te_trainer.data.compression import file_format, strip_compression
from te_trainer.data.hub_sets import load_set, split_set
from te_trainer.data.line_rows import decoded, json_rows, jsonl_rows, separated_rows, txt_rows, unquoted_tsv_rows
from te_trainer.data.remote import address_format, failure, is_address, open_lines, open_parquet
from te_trainer.data.request import Request, Row
from te_trainer.errors import InputError
from te_trainer.files.disk_errors import source_errors_as_input_error

# What to do with a file of a format that is not read.
_INSTEAD = {
    ".json": "if it holds an object a line, rename it to .jsonl; ",
    ".xls": "save it as CSV (UTF-8); ",
    ".xlsx": "save it as CSV (UTF-8); ",
    ".zip": "unpack it; ",
}
_SEVERAL = "; several files, where a key takes them, are written '[a.csv, b.csv]'"
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


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
    request = Request(tuple(wanted), columns or {}, rows, [] if notes is None else notes, others)
    with source_errors_as_input_error(source):
        yield from _rows(source, request, folder, pool)


def _rows(source: str, request: Request, folder: str | None, pool: bool) -> Iterator[Row]:
    path = Path(source)
    if benchmark := find_benchmark(source):
        return _benchmark(benchmark, request, folder, pool)
    if is_address(source):
        return _address(source, request)
    if path.is_dir():
        if not is_saved_dataset(path):
            # who may not look into it is told so
            several = sum(file_format(file) in FILE_SUFFIXES for file in path.iterdir()) > 1
            fix = f"name a file in it{_SEVERAL if several else ''}"
            raise InputError(f"{path}: the folder is no Dataset saved with save_to_disk; {fix}")
        return saved_dataset_rows(path, request)
    if ("*" in source or "?" in source) and not _is_there(path):
        raise InputError(f"{source}: the file does not exist{_SEVERAL}")
    if reader := _READERS.get(file_format(path)):
        if not (_is_there(path) and path.is_file()):
            raise InputError(f"{source}: the file does not exist")
        if reader is parquet_rows and path != strip_compression(path):
            raise InputError(f"{source}: Parquet is compressed inside; unpack the file")
        return reader(path, request)
    if _is_there(path):
        known = f"known are {', '.join(FILE_SUFFIXES)}, each but .parquet also with .gz, .bz2 or .xz after it"
        plain = strip_compression(path)
        if not plain.suffix:
            example = f"{plain.name}.tsv{path.suffix}"
            raise InputError(f"{source}: the name does not tell the format; rename the file, e.g. {example}; {known}")
        instead = _INSTEAD.get(plain.suffix.lower(), "")
        raise InputError(f"{source}: the format '{plain.suffix}' is not known; {instead}{known}")
    if hub_set := split_set(source):
        return split_rows(source, load_set(*hub_set), request)
    raise InputError(f"{source}: no such file, folder, benchmark ({', '.join(BENCHMARKS)}) or Hub id (owner/name)")


def _is_there(path: Path) -> bool:
    """Whether there is something; raises an OSError where nobody may look, as `Path.exists` did before Python 3.14."""
    try:
        path.stat()
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return False
    return True


def find_benchmark(source: str) -> Benchmark | None:
    """The benchmark that a source names; None for others, and where a file or a saved Dataset has the name."""
    benchmark = BENCHMARKS.get(source)
    return None if benchmark and is_here(source) else benchmark


def is_here(source: str | Path) -> bool:
    """Whether a source is a file or a saved Dataset of this machine; an output folder may have its name, too."""
    return is_file(source) or is_saved_dataset(source)


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


def _address(source: str, request: Request) -> Iterator[Row]:
    try:
        if address_format(source) == ".parquet":
            yield from dataset_rows(source, open_parquet(source), request)
        else:
            for file, lines in open_lines(source):
                yield from json_rows(file, decoded(file, lines), request)
    except InputError:
        raise
    except Exception as error:  # of the file systems, the network, or a file that is none of its kind
        raise InputError(f"{source}: not to be had from this address ({failure(error, source)})") from None


def _benchmark(benchmark: Benchmark, request: Request, folder: str | None, pool: bool) -> Iterator[Row]:
    if folder is not None:
        path = Path(folder, f"{benchmark.name}.tsv")
        if not path.is_file():
            raise InputError(f"data.dir: {folder} holds no {benchmark.name}.tsv; drop it there, or leave data.dir out")
        rows = request.rows or (benchmark.pool if pool else ())
        fix = "a benchmark's file in data.dir has the columns split, score, sentence1, sentence2"
        yield from unquoted_tsv_rows(path, replace(request, columns={}, rows=rows, fix=fix))
        return
    rows = request.rows or ((benchmark.hub_pool or benchmark.pool) if pool else ())
    rows = tuple(replace(each, split=benchmark.hub_splits.get(each.split, each.split)) for each in rows)
    splits = load_set(benchmark.repository, benchmark.configuration)
    for position, values in split_rows(
        benchmark.repository, splits, replace(request, columns=benchmark.columns, rows=rows)
    ):
        if benchmark.positive is not None and "score" in request.wanted:
            score = request.wanted.index("score")
            values[score] = float(values[score] == benchmark.positive)
        yield position, values


_READERS: dict[str, Callable[[Path, Request], Iterator[Row]]] = {
    ".txt": txt_rows,
    ".tsv": separated_rows,
    ".csv": separated_rows,
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".parquet": parquet_rows,
}
FILE_SUFFIXES = tuple(_READERS)
