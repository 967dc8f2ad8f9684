"""Rows out of every format, each with the place it stands at."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import itertools
import json
import lzma
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from datasets import Dataset, DatasetDict
from datasets.packaged_modules.parquet.parquet import Parquet

from te_trainer.config.schema import DataConfig
from te_trainer.data.line_rows import LONGEST_CELL
from te_trainer.data.pool import build_pool
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError

PAIRS = [
    ("The lid says 'open', doesn't it?", "Où est le câble — 電源 🔌"),
    ("Kettle, toaster; or both", "a | single bar"),
    ("last", "one"),
]
WANTED = ["sentence1", "sentence2"]
FILES = ["tsv", "csv", "jsonl", "parquet"]
FORMATS = ["txt", *FILES, "dataset", "dataset-dict"]


def write_rows(place: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    """Write rows in a format; `place` is a path without ending. Gives the source's name."""
    path = place if kind.startswith("dataset") else place.with_suffix(f".{kind}")
    if kind == "txt":
        path.write_text("".join("||".join(row.values()) + "\n" for row in rows), encoding="utf-8")
    elif kind == "tsv":
        lines = ["\t".join(rows[0]), *("\t".join(str(_filled(value)) for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif kind == "dataset":
        Dataset.from_list(rows).save_to_disk(str(path))
    else:
        halves = {"train": Dataset.from_list(rows[:1]), "validation": Dataset.from_list(rows[1:])}
        DatasetDict(halves).save_to_disk(str(path))
    return str(path)


def put_into_hub_cache(
    folder: Path, repository: str, configuration: str | None, splits: dict[str, list[dict[str, Any]]]
) -> None:
    """Leave a set where `datasets` keeps what it has had from the Hub; offline, it reads it from there."""
    files = {split: str(folder / f"{split}.parquet") for split in splits}
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), files[split])
    builder = Parquet(
        cache_dir=str(folder / "built"),
        dataset_name=repository.split("/")[1],
        config_name=configuration or "default",
        data_files=files,
        hash="0" * 40,
    )
    builder.download_and_prepare()
    place = datasets.config.HF_DATASETS_CACHE / repository.replace("/", "___") / (configuration or "default")
    (place / "0.0.0").mkdir(parents=True)
    shutil.move(builder.cache_dir, place / "0.0.0" / ("0" * 40))


def as_rows(pairs: list[tuple[str, str]], names: tuple[str, str] = ("sentence1", "sentence2")) -> list[dict[str, str]]:
    return [dict(zip(names, pair, strict=True)) for pair in pairs]


def read(source: str, columns: dict[str, str] | None = None, **more: Any) -> list[tuple[str, ...]]:
    return [tuple(values) for _, values in read_rows(source, WANTED, columns or {}, **more)]


def places(source: str, **more: Any) -> list[str]:
    return [place for place, _ in read_rows(source, WANTED, **more)]


def _filled(value: Any) -> Any:
    return "" if value is None else value


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows_in_their_order(tmp_path: Path, kind: str) -> None:
    assert read(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS))) == PAIRS


def test_a_first_column_may_be_called_like_a_guideline(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("# number\tsentence1\tsentence2\n1\tone\ttwo\n", encoding="utf-8")
    assert read(str(path)) == [("one", "two")]


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_a_compressed_file_gives_the_same_rows(tmp_path: Path, kind: str, module: Any) -> None:
    plain = Path(write_rows(tmp_path / "Pairs.2026", kind, as_rows(PAIRS)))
    packed = plain.with_name(plain.name.upper() + {gzip: ".GZ", bz2: ".bz2", lzma: ".xz"}[module])
    packed.write_bytes(module.compress(plain.read_bytes()))
    assert read(str(packed)) == PAIRS
    assert places(str(packed))[-1].startswith(f"{packed}, line ")


def test_json_lines_may_end_in_ndjson(tmp_path: Path) -> None:
    plain = Path(write_rows(tmp_path / "pairs", "jsonl", as_rows(PAIRS)))
    packed = tmp_path / "pairs.ndjson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(str(packed)) == read(str(plain.rename(tmp_path / "pairs.ndjson"))) == PAIRS


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "plain", "checksum"])
def test_a_damaged_compressed_file_is_refused_by_name(tmp_path: Path, ending: str, damage: str) -> None:
    lines = "".join(f"sentence {number}||{number * 7919} others\n" for number in range(5_000)).encode()
    content = {"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress(lines)
    changed = content[:-6] + bytes([255 - content[-6]]) + content[-5:]
    path = tmp_path / f"pairs.txt.{ending}"
    path.write_bytes({"cut": content[:-20], "plain": lines, "checksum": changed}[damage])
    with pytest.raises(InputError, match=rf"pairs.txt.{ending}: damaged, or not a .{ending} file .*; compress it anew"):
        read(str(path))


def test_a_compressed_parquet_file_is_to_be_unpacked(tmp_path: Path) -> None:
    plain = Path(write_rows(tmp_path / "pairs", "parquet", as_rows(PAIRS)))
    packed = plain.with_name("pairs.parquet.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(InputError, match="Parquet is compressed inside; unpack the file"):
        read(str(packed))


@pytest.mark.parametrize("kind", [*FILES, "dataset", "dataset-dict"])
def test_columns_are_found_by_the_names_they_are_mapped_to_among_others(tmp_path: Path, kind: str) -> None:
    rows = [{"id": "7", "answer": two, "label": "0.5", "question": one} for one, two in PAIRS]
    source = write_rows(tmp_path / "pairs", kind, rows)
    assert read(source, {"sentence1": "question", "sentence2": "answer"}) == PAIRS


@pytest.mark.parametrize("kind", [*FILES, "dataset", "dataset-dict"])
def test_a_mapped_column_that_is_absent_falls_back_to_its_plain_name(tmp_path: Path, kind: str) -> None:
    rows = [{"label": "0.5", "answer": two, "sentence1": one} for one, two in PAIRS]
    source = write_rows(tmp_path / "pairs", kind, rows)
    assert read(source, {"sentence1": "question", "sentence2": "answer"}) == PAIRS
    plain = write_rows(tmp_path / "plain", kind, as_rows(PAIRS))
    assert read(plain, {"sentence1": "question", "sentence2": "answer"}) == PAIRS
    with pytest.raises(InputError, match="no column 'question' among label, answer, sentence1; map it"):
        read(source, {"sentence2": "question"})
    # The plain column is the other sentence's here: it cannot stand for both.
    with pytest.raises(InputError, match="no column 'question' among"):
        read(plain, {"sentence1": "question", "sentence2": "sentence1"})


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_that_begins_with_a_pair_lacks_a_line_with_names(suffix: str, tmp_path: Path) -> None:
    for names in (["kettle", "toaster", "lamp"], ["sentence1", "toaster"]):
        source = write_rows(tmp_path / "pairs", suffix, [dict.fromkeys(names, "x")])
        with pytest.raises(InputError) as raised:
            read(source)
        assert "above it" not in str(raised.value)  # columns may be called so
    for names in (["kettle", "toaster"], ["my router keeps restarting daily", "it is broken", "7"]):
        source = write_rows(tmp_path / "pairs", suffix, [dict.fromkeys(names, "x")])
        words = (
            f"no column 'sentence1' among {', '.join(names)}; map it with data.columns "
            r"\(if its first line is a pair already, write a line with the columns' names above it\)$"
        )
        with pytest.raises(InputError, match=words):
            read(source)


@pytest.mark.parametrize("columns", [{"sentence1": "a", "sentence2": "a"}, {"sentence1": "sentence2"}])
def test_one_column_is_not_read_as_both_sentences(columns: dict[str, str], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "source", "csv", [{"a": "x", "sentence1": "y", "sentence2": "z"}])
    with pytest.raises(InputError, match="sentence1 and sentence2 would both be read from the column"):
        read(source, columns)


def test_later_json_rows_have_the_columns_of_the_first(tmp_path: Path) -> None:
    rows = [{"question": "one", "sentence2": "two"}, {"sentence1": "three", "text": "four"}]
    source = write_rows(tmp_path / "pairs", "jsonl", rows)
    with pytest.raises(InputError, match="line 2: no column 'question' among sentence1, text"):
        read(source, {"sentence1": "question"})


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("txt", "pairs.txt, line 3"),
        ("tsv", "pairs.tsv, line 4"),
        ("csv", "pairs.csv, line 4"),
        ("jsonl", "pairs.jsonl, line 3"),
        ("parquet", "pairs.parquet, row 3"),
        ("dataset", "pairs, row 3"),
        ("dataset-dict", "pairs, validation row 2"),
    ],
)
def test_every_row_names_its_place(tmp_path: Path, kind: str, last: str) -> None:
    assert places(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS)))[-1] == str(tmp_path / last)


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
@pytest.mark.parametrize(
    "change",
    [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xef\xbb\xbf" + text, lambda text: text.rstrip(b"\n")],
    ids=["Windows", "byte order mark", "no last end"],
)
def test_line_ends_and_marks_are_no_part_of_a_sentence(
    tmp_path: Path, kind: str, change: Callable[[bytes], bytes]
) -> None:
    path = Path(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS)))
    path.write_bytes(change(path.read_bytes()))
    assert read(str(path)) == PAIRS


@pytest.mark.parametrize("kind", ["txt", *FILES])
def test_endings_may_be_capital(tmp_path: Path, kind: str) -> None:
    path = Path(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS)))
    assert read(str(path.rename(path.with_suffix(f".{kind.upper()}")))) == PAIRS


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, kind: str) -> None:
    pairs = [("one\u2028two\x0bthree", "four\x85five\x0csix"), ("seven", "eight")]
    assert read(write_rows(tmp_path / "pairs", kind, as_rows(pairs))) == pairs


def test_quoted_csv_cells_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    pairs = [("a, b", 'she said "no"'), ("two\nlines", "and\r\nthree\nmore"), ("last", "one")]
    source = write_rows(tmp_path / "pairs", "csv", as_rows(pairs))
    assert read(source) == pairs
    assert [place.rpartition(" ")[2] for place in places(source)] == ["2", "6", "7"]


def test_quotes_in_a_tsv_are_characters_like_others(tmp_path: Path) -> None:
    pairs = [('"Open', 'the 5" screen'), ('""', '"'), ('he said ""', "'x'")]
    assert read(write_rows(tmp_path / "pairs", "tsv", as_rows(pairs))) == pairs


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
def test_blank_lines_are_empty_rows(tmp_path: Path, kind: str) -> None:
    path = Path(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS)))
    path.write_text(path.read_text(encoding="utf-8") + " \n", encoding="utf-8")
    assert read(str(path)) == [*PAIRS, ("", "")]


@pytest.mark.parametrize("kind", [*FILES, "dataset"])
def test_a_split_column_chooses_rows(tmp_path: Path, kind: str) -> None:
    rows = [{"split": split, **row} for split, row in zip(["dev", "test", "dev"], as_rows(PAIRS), strict=True)]
    source = write_rows(tmp_path / "pairs", kind, rows)
    if kind in {"tsv", "csv", "jsonl"}:  # a blank line is in no split
        with Path(source).open("a", encoding="utf-8") as file:
            file.write("\n")
    assert read(source, split="dev") == [PAIRS[0], PAIRS[2]]
    assert read(source)[:3] == PAIRS


@pytest.mark.parametrize("kind", FORMATS[:-1])
def test_a_source_without_splits_gives_all_rows_to_any_split(tmp_path: Path, kind: str) -> None:
    assert read(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS)), split="dev") == PAIRS


def test_a_split_of_a_saved_dataset_dict_is_chosen_by_its_name(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "pairs", "dataset-dict", as_rows(PAIRS))
    assert read(source, split="validation") == PAIRS[1:]
    with pytest.raises(InputError, match="no split 'test' among train, validation"):
        read(source, split="test")


def test_dev_rows_are_those_of_dev_or_else_of_validation(tmp_path: Path) -> None:
    splits = {"validation": Dataset.from_list(as_rows(PAIRS[:1])), "test": Dataset.from_list(as_rows(PAIRS[2:]))}
    DatasetDict(splits).save_to_disk(str(tmp_path / "one"))
    assert read(str(tmp_path / "one"), split="dev") == PAIRS[:1]
    DatasetDict({**splits, "dev": Dataset.from_list(as_rows(PAIRS[1:2]))}).save_to_disk(str(tmp_path / "both"))
    assert read(str(tmp_path / "both"), split="dev") == PAIRS[1:2]


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
def test_rows_are_given_before_later_ones_are_read(tmp_path: Path, kind: str) -> None:
    path = Path(write_rows(tmp_path / "pairs", kind, as_rows(PAIRS)))
    path.write_bytes(path.read_bytes() + b"\xff broken\n")
    rows = read_rows(str(path), WANTED, {})
    assert [tuple(next(rows)[1]) for _ in PAIRS] == PAIRS
    with pytest.raises(InputError, match="not UTF-8"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "one||two\nalone\n", "a.txt, line 2: no second sentence"),
        ("a.txt", "one||two||three\n", "a.txt, line 1: 3 sentences"),
        ("a.txt", "one||two\rthree||four\r", "a.txt, line 1: a carriage return in the middle; end lines with a line"),
        ("a.tsv", "\n \t\n", "a.tsv: the file is empty"),
        ("a.tsv", "sentence1\tsentence2\none\ttwo\nalone\n", "a.tsv, line 3: 1 columns where the header has 2"),
        ("a.csv", 'sentence1,sentence2\n"one\nmore",two\nalone\n', "a.csv, line 4: 1 columns where the header has 2"),
        (
            "a.csv",
            'sentence1,sentence2\none,"two\n',
            "a.csv, line 2: quotes or a long cell break it (unexpected end of data)",
        ),
        (
            "a.csv",
            'sentence1,sentence2\none,two\n"three,four\nfive,six\n"seven",eight\n',
            "a.csv, lines 3 to 5: quotes or a long cell break it",
        ),
        ("a.tsv", "sentence1\tsentence2\none\ttwo\nthree\rx\tfour\n", "a.tsv, line 3: a carriage return in the middle"),
        ("a.csv", "sentence1,sentence2\none\rx,two\n", "a.csv, line 2: a carriage return in the middle"),
        ("a.tsv", "", "a.tsv: the file is empty"),
        ("a.tsv", "sentence1\ttext\none\ttwo\n", "a.tsv: no column 'sentence2' among sentence1, text; map it"),
        ("a.csv", "one,two\n", "a.csv: no column 'sentence1' among one, two; map it"),
        ("a.jsonl", '{"sentence1": "x", "sentence2": "y"}\n{"one": "x"}\n', "line 2: no column 'sentence1' among one"),
        ("a.jsonl", "{oops}\n", "a.jsonl, line 1: not JSON"),
        ("a.jsonl", '["x", "y"]\n', "a.jsonl, line 1: a list where an object is expected; write one object a line"),
        (
            "a.jsonl",
            f'{{"sentence1": {"1" * 10_000}, "sentence2": "y"}}\n',
            "line 1: not JSON (Exceeds the limit (4300 ",
        ),
        ("a.jsonl", "\n" + "[" * 100_000 + "\n", "a.jsonl, line 2: not JSON (maximum recursion depth exceeded"),
        ("a.jsonl", '{"a": 1}\n'.replace("a", "a" * 10_000), "aaa; map it with data.columns"),
        ("a.jsonl", "null\n", "a.jsonl, line 1: a NoneType where an object is expected"),
        ("a.jsonl", "7\n", "a.jsonl, line 1: a int where an object is expected"),
        ("a.jsonl", "\0" * 100 + "\n", "a.jsonl, line 1: a NUL byte; the file is damaged"),
        ("a.tsv", "sentence1\tsentence2\n\0\0\tx\n", "a.tsv, line 2: a NUL byte; the file is damaged"),
        ("a.csv", "sentence1,sentence2\nx\0,y\n", "a.csv, line 2: a NUL byte; the file is damaged"),
        ("a.txt", "\0||\0\n", "a.txt, line 1: a NUL byte; the file is damaged"),
        ("a.parquet", "no table", "a.parquet: not a Parquet file"),
        ("a.csv", "frage;antwort\none;two\n", "a.csv: no column 'sentence1' among frage, antwort; map it"),
        ("a.csv", "sentence1;sentence2\none;two;three\n", "a.csv, line 2: 3 columns where the header has 2"),
        ("a.csv", "sentence1,sentence2,sentence1\na,b,c\n", "a.csv: 2 columns are named 'sentence1'; rename all but"),
        ("a.gz", "x", "a.gz: the name does not tell the format; rename the file, e.g. a.tsv.gz; known are .txt, .tsv"),
        ("a", "x", "a: the name does not tell the format; rename the file, e.g. a.tsv; known are .txt, .tsv"),
        ("a.tar.gz", "x", "a.tar.gz: the format '.tar' is not known; known are .txt, .tsv"),
        ("a.docx", "x", "a.docx: the format '.docx' is not known; known are .txt, .tsv, .csv, .jsonl, .ndjson, .par"),
        ("a.json", "x", "'.json' is not known; if it holds an object a line, rename it to .jsonl; known are .txt"),
        ("a.JSON.gz", "x", "'.JSON' is not known; if it holds an object a line, rename it to .jsonl; known are .txt"),
        ("a.xlsx", "x", "a.xlsx: the format '.xlsx' is not known; save it as CSV (UTF-8); known are .txt"),
        ("a.csv.zip", "x", "a.csv.zip: the format '.zip' is not known; unpack it; known are .txt"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    with pytest.raises(InputError) as caught:
        read(str(tmp_path / name))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1_000 + len(str(tmp_path))


HEADER = {"sentence1": "question", "sentence2": "answer"}
SEPARATED = [("a, b; c | d\te", 'he said "no"'), ("line\nbreak", "x"), ("last", "one")]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize(
    ("mark", "name", "excel"),
    [(",", "commas", ""), (";", "semicolons", ""), ("\t", "tabs", ""), ("|", "bars", ""), (";", "semicolons", "sep=")],
)
def test_the_header_shows_what_separates_the_columns(
    mark: str, name: str, excel: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"pairs.{ending}"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        file.write(f"{excel}{mark}\r\n" if excel else "")
        csv.writer(file, delimiter=mark).writerows(
            [("id, no", "question", "answer"), *((1, *row) for row in SEPARATED)]
        )
    notes: list[str] = []
    assert read(str(path), HEADER, notes=notes) == SEPARATED
    said = [f"{path}: its columns are separated by {name}"]
    assert notes[:1] == said if mark != {"csv": ",", "tsv": "\t"}[ending] else said[0] not in notes


def test_the_expected_mark_goes_before_others(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,a;b\nx;y,z,1;2\n")
    assert read(str(tmp_path / "pairs.csv")) == [("x;y", "z")]


def test_utf_16_is_refused(tmp_path: Path) -> None:
    for encoding, reason in {"utf-16": "UTF-16", "utf-16-le": "a NUL byte"}.items():
        (tmp_path / "pairs.csv").write_text("sentence1,sentence2\nx,y\n", encoding=encoding)
        with pytest.raises(InputError, match=rf"pairs\.csv, line 1: {reason}"):
            read(str(tmp_path / "pairs.csv"))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a web server with the files of the folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_lines_of_the_documents_make_a_source_of_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("support.db") as connection:
        connection.execute("CREATE TABLE tickets (id INT, question TEXT, candidate TEXT)")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?)", [(at, *pair) for at, pair in enumerate(PAIRS)])
    connection.close()
    text = (ROOT / "docs" / "input.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "from_sql" in block)
    (local,) = re.findall(r"`(sqlite3\.connect\(.+?\))` in place of the address", text)
    exec(re.sub(r'"postgresql:.+?"', local, code), {"sqlite3": sqlite3})
    assert read("tickets", None) == PAIRS


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_files_at_an_address_are_read(kind: str, address: str, tmp_path: Path) -> None:
    rows = [{"id": number, **row} for number, row in enumerate(as_rows(PAIRS, ("question", "answer")))]
    write_rows(tmp_path / "one", kind, rows[:2])
    write_rows(tmp_path / "two", kind, rows[2:])
    assert read(f"{address}/one.{kind}", HEADER) == PAIRS[:2]
    unit = {"parquet": "row", "jsonl": "line"}[kind]
    assert places(f"file://{tmp_path}/two.{kind}", columns=HEADER) == [f"file://{tmp_path}/two.{kind}, {unit} 1"]
    assert sorted(read(f"file://{tmp_path}/*.{kind}", HEADER)) == sorted(PAIRS)
    with pytest.raises(InputError, match="no column 'sentence1' among id, question, answer"):
        read(f"{address}/one.{kind}")


def test_json_lines_at_an_address_are_those_of_a_file(address: str, tmp_path: Path) -> None:
    """Texts stay texts, an identifier may be a number here and a text there, and a line may be broken."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"sentence1": "2024-02-29", "sentence2": "b", "id": 1, "o": {"x": 1}, "day": "2024-02-29"},
        {"sentence1": "c", "sentence2": "d", "id": "two", "o": {"y": 2}},
    ]
    text = json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1]) + "\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(f"{address}/pairs.jsonl", others=True) == read(str(path), others=True)
    shutil.copy(path, path.with_suffix(".ndjson"))
    assert read(f"{address}/pairs.ndjson") == read(str(path))
    path.write_text(text + '{"sentence1": "alone"}\n{"text": "x"}\n')
    rows = read_rows(f"{address}/pairs.jsonl", ["sentence1", "sentence2"], {})
    # what is empty may be left out
    assert list(itertools.islice(rows, 4))[-1][1] == ["alone", None]
    with pytest.raises(InputError, match=r"pairs\.jsonl, line 5: no column 'sentence1' among text; map it"):
        next(rows)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ADDRESS/pairs.csv", r"only \.parquet, \.jsonl and \.ndjson files can be read .*; download the file"),
        ("ADDRESS/owner/name", r"only \.parquet, \.jsonl and \.ndjson files can be read"),
        ("ADDRESS/gone.jsonl", r"gone\.jsonl: not to be had from this address \(Unable to find"),
        ("ADDRESS/damaged.parquet", r"damaged\.parquet: not to be had from this address \("),
        ("nowhere://bucket/a.parquet", r"not to be had from this address \(Protocol not known"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused(source: str, message: str, address: str, tmp_path: Path) -> None:
    (tmp_path / "damaged.parquet").write_text("no table")
    with pytest.raises(InputError, match=message):
        read(source.replace("ADDRESS", address))


def test_a_damaged_page_or_a_doubled_column_of_parquet_is_named(tmp_path: Path) -> None:
    columns = ["sentence1", "sentence2", "sentence1"]
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=columns), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: 2 columns are named 'sentence1'; rename all but one"):
        read(str(tmp_path / "d.parquet"))
    path = Path(write_rows(tmp_path / "pairs", "parquet", as_rows(PAIRS)))
    content = bytearray(path.read_bytes())
    content[10:40] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"pairs\.parquet: not a Parquet file, or a damaged one"):
        read(str(path))


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_a_huge_cell_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    source = write_rows(
        tmp_path / "pairs", kind, as_rows([PAIRS[0], ("x" * 200_000, "two"), ("x" * (LONGEST_CELL + 1), "two")])
    )
    with pytest.raises(InputError, match=rf"pairs\.{kind}, line 4: quotes or a long cell break it \(field larger than"):
        read(source)


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl"])
def test_broken_utf_8_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    path = Path(write_rows(tmp_path / "pairs", kind, as_rows([("one", "two"), ("café", "au lait")])))
    path.write_bytes(path.read_text(encoding="utf-8").replace("\\u00e9", "é").encode("latin-1"))
    line = 2 if kind in {"txt", "jsonl"} else 3
    with pytest.raises(InputError, match=rf"pairs\.{kind}, line {line}: not UTF-8"):
        read(str(path))


def test_broken_utf_8_in_parquet_is_named(tmp_path: Path) -> None:
    data = pa.array([b"fine", b"caf\xe9"])
    column = pa.Array.from_buffers(pa.string(), 2, data.buffers())
    pq.write_table(pa.table({"sentence1": column, "sentence2": ["x", "y"]}), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"pairs\.parquet.*not UTF-8"):
        read(str(tmp_path / "pairs.parquet"))


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_a_column_missing_in_parquet_or_a_saved_dataset_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="no column 'sentence2' among sentence1, text"):
        read(write_rows(tmp_path / kind, kind, as_rows(PAIRS, ("sentence1", "text"))))


def test_a_split_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    splits = {name: Dataset.from_list(as_rows(PAIRS, ("sentence1", name))) for name in ("test", "sentence2", "dev")}
    source = str(tmp_path / "dict")
    DatasetDict(splits).save_to_disk(source)
    lacks = f"{source}, split 'test': no column 'sentence2' among sentence1, test; map it with data.columns"
    with pytest.raises(InputError) as caught:
        read(source)
    assert str(caught.value) == f"{lacks}, or name one split alone, saved by dataset['sentence2'].save_to_disk(...)"
    with pytest.raises(InputError) as caught:
        read(source, split="test")
    assert str(caught.value) == lacks


def test_sources_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.tsv: the file does not exist"):
        read(str(tmp_path / "gone.tsv"))
    with pytest.raises(InputError, match="no such file, folder, benchmark"):
        read("stsbb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no Dataset saved with save_to_disk; name a file in it$"):
        read(str(tmp_path / "empty"))
    for name in ("a.csv", "b.csv.gz"):
        (tmp_path / "empty" / name).touch()
    several = r"; several files, where a key takes them, are written '\[a\.csv, b\.csv\]'$"
    with pytest.raises(InputError, match=f"save_to_disk; name a file in it{several}"):
        read(str(tmp_path / "empty"))
    for pattern in ("prod*.csv", "prod?", "products/*"):
        with pytest.raises(InputError, match=f"^{re.escape(pattern)}: the file does not exist{several}"):
            read(pattern)
    (tmp_path / "what?.csv").write_text("sentence1,sentence2\none,two\n", encoding="utf-8")
    assert read(str(tmp_path / "what?.csv")) == [("one", "two")]
    with pytest.raises(InputError, match="nobody/nothing: not a file here, and not to be had from the Hub"):
        read("nobody/nothing")


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """What root may do, others may not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("looks", ["raises", "says no"])
@pytest.mark.parametrize("kind", [*FORMATS, "folder", "dataset's folder"])
def test_a_source_that_may_not_be_read_is_named(kind: str, looks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if looks == "says no":  # from Python 3.14 on
        for name, look in (("exists", os.path.exists), ("is_file", os.path.isfile), ("is_dir", os.path.isdir)):
            monkeypatch.setattr(Path, name, lambda self, look=look: look(self))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "denied").mkdir()
        suffix = {"folder": "csv", "dataset's folder": "dataset"}.get(kind, kind)
        source = write_rows(folder / "denied" / "pairs", suffix, as_rows(PAIRS))
        closed = {"folder": folder / "denied", "dataset's folder": Path(source)}
        denied = [closed[kind]] if kind in closed else [path for path in folder.rglob("*") if path.is_file()]
        modes = [path.stat().st_mode for path in denied]
        for path in denied:
            path.chmod(0)
        with as_somebody_else(), pytest.raises(InputError) as caught:
            build_pool(DataConfig(pool=[source]), folder / "out")
        for path, mode in zip(denied, modes, strict=True):
            path.chmod(mode)
    assert str(caught.value).startswith(source)
    assert ": cannot be read (Permission denied); change the mode of it or of its folder" in str(caught.value)


@pytest.mark.parametrize("kind", ["txt", "tsv", "csv", "jsonl", "tsv.gz"])
def test_a_source_on_a_broken_disk_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{kind}"
    path.symlink_to("/proc/self/mem")  # whose first bytes nobody can read
    for attempt in (lambda: read(str(path)), lambda: build_pool(DataConfig(pool=[str(path)]), tmp_path / "out")):
        with pytest.raises(InputError, match=rf"^{path}: cannot be read \(Input/output error\); check its disk$"):
            attempt()


@pytest.mark.parametrize("damage", ["state", "info", "cut", "gone"])
def test_a_damaged_saved_dataset_is_called_damaged(damage: str, tmp_path: Path) -> None:
    source = Path(write_rows(tmp_path / "pairs", "dataset", as_rows(PAIRS)))
    (arrow,) = source.glob("*.arrow")
    if damage == "state":
        (source / "state.json").write_text("{}")
    elif damage == "info":
        (source / "dataset_info.json").write_text('{"features": {"sentence1": {"_type": "Strange"}}}')
    elif damage == "cut":
        arrow.write_bytes(arrow.read_bytes()[:100])
    else:
        arrow.unlink()
    with pytest.raises(InputError, match=rf"^{source}: the saved Dataset is damaged \(.*\); save it anew$"):
        read(str(source))


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
@pytest.mark.parametrize("blank", ["\n", "\r\n \r\n", "MARK\n"])
def test_blank_lines_before_the_header_are_skipped(blank: str, suffix: str, tmp_path: Path) -> None:
    path = Path(write_rows(tmp_path / "pairs", suffix, as_rows(PAIRS)))
    mark = {"tsv": "\t", "csv": ","}[suffix]
    path.write_bytes(blank.replace("MARK", mark).encode() + path.read_bytes())
    assert read(str(path)) == PAIRS
    quoted = f'"sentence1"{mark}"sentence2"\n"he said ""no"""{mark}"b"\n'
    for order_mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(order_mark + blank.replace("MARK", mark).encode() + quoted.encode())
        assert read(str(path)) == [('he said "no"', "b")]


def test_a_split_that_is_no_text_is_none(tmp_path: Path) -> None:
    rows = [{"split": split, **row} for split, row in zip([["dev"], None, "dev"], as_rows(PAIRS), strict=True)]
    assert read(write_rows(tmp_path / "pairs", "jsonl", rows), split="dev") == PAIRS[2:]


def test_an_output_folder_hides_no_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command makes its folder before it reads."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "sts16", "tsv", [{"split": "test", "score": "1", **row} for row in as_rows(PAIRS)])
    Path("sts16").mkdir()
    assert read("sts16", folder=".") == PAIRS
    shutil.rmtree("sts16")
    write_rows(tmp_path / "sts16", "dataset", as_rows(PAIRS[:1]))
    assert read("sts16", folder=".") == PAIRS[:1]


def test_a_benchmark_is_read_from_its_folder(tmp_path: Path) -> None:
    rows = [{"split": "test", "score": "1", **row} for row in as_rows(PAIRS)]
    write_rows(tmp_path / "sts16", "tsv", rows)
    assert read("sts16", folder=str(tmp_path)) == PAIRS
    # The columns of a benchmark are known; a mapping is for other files.
    assert read("sts16", {"sentence1": "question"}, folder=str(tmp_path)) == PAIRS
    with pytest.raises(InputError, match=r"holds no sickr\.tsv"):
        read("sickr", folder=str(tmp_path))
    write_rows(tmp_path / "sts15", "tsv", as_rows(PAIRS, ("question", "sentence2")))
    columns = "a benchmark's file in data.dir has the columns split, score, sentence1, sentence2"
    with pytest.raises(InputError, match=rf"sts15\.tsv: no column 'sentence1' among question, sentence2; {columns}$"):
        read("sts15", folder=str(tmp_path))


def test_a_set_of_the_hub_is_read_by_its_id_and_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = {"train": as_rows(PAIRS[:2]), "validation": as_rows(PAIRS[2:])}
    put_into_hub_cache(tmp_path, "owner/plain", None, splits)
    put_into_hub_cache(tmp_path, "owner/several", "english", splits)
    assert read("owner/plain") == PAIRS
    assert read("owner/several:english", split="validation") == PAIRS[2:]
    assert places("owner/plain")[-1] == "owner/plain, validation row 1"
