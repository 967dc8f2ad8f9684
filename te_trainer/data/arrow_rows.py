"""Rows of Arrow's columns: Parquet files, saved data sets, those of the Hub and those in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from te_trainer.config.names import is_file
from te_trainer.data.benchmarks import Rows
from te_trainer.data.request import Request, Row
from te_trainer.errors import InputError, MissingColumnError, first_line
from te_trainer.files.disk_errors import DISK_ERRORS


def is_saved_dataset(folder: str | Path) -> bool:
    """Whether a folder was made by `save_to_disk`."""
    return any(is_file(Path(folder, name)) for name in ("state.json", "dataset_dict.json"))


def _arrow_rows(
    source: str, unit: str, names: Sequence[str], blocks: Callable[[list[str]], Iterable[Any]], request: Request
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
        except (OverflowError, ValueError) as error:  # a date after the year 9999
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


def parquet_rows(path: Path, request: Request) -> Iterator[Row]:
    """Yield the rows of a Parquet file."""
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


def saved_dataset_rows(path: Path, request: Request) -> Iterator[Row]:
    """Yield the rows of a folder that `save_to_disk` made."""
    from datasets import load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds for files that are gone, cut or changed
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        raise InputError(f"{path}: the saved Dataset is damaged ({first_line(error)}); save it anew") from None
    rows = split_rows if isinstance(loaded, dict) else dataset_rows
    return rows(str(path), loaded, request)


def dataset_rows(source: str, dataset: Any, request: Request, unit: str = "row") -> Iterator[Row]:
    """Yield the rows of a Dataset, each of which errors call a `unit` of `source`."""

    def blocks(columns: list[str]) -> Iterable[Any]:
        return dataset.select_columns(columns).with_format("arrow").iter(batch_size=1000)  # type: ignore[no-any-return]

    return _arrow_rows(source, unit, dataset.column_names, blocks, request)


def split_rows(source: str, splits: Mapping[str, Any], request: Request) -> Iterator[Row]:
    """Yield the rows of a source's data sets, which are named by split."""
    renamed = {} if "dev" in splits else {"dev": "validation"}
    chosen = [replace(each, split=renamed.get(each.split, each.split)) for each in request.rows]
    present = [each for each in chosen or map(Rows, splits) if each.split in splits]
    if not present:
        raise InputError(
            f"{source}: no split '{request.rows[0].split}' among {', '.join(splits)}; choose another set (or a folder "
            "with the benchmark's NAME.tsv as data.dir)"
        )
    lacking: dict[str, MissingColumnError] = {}
    for each in present:
        try:
            request.find_columns(f"{source}, split '{each.split}'", splits[each.split].column_names)
        except MissingColumnError as error:
            lacking[each.split] = error
    if lacking:
        whole = [each.split for each in present if each.split not in lacking]
        alone = f", or name one split alone, saved by dataset['{whole[0]}'].save_to_disk(...)" if whole else ""
        raise MissingColumnError(f"{next(iter(lacking.values()))}{alone}")
    for each in present:
        rows = dataset_rows(source, splits[each.split], replace(request, rows=()), f"{each.split} row")
        yield from islice(rows, each.start, each.stop)
