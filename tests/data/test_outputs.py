"""Scores as files: every format holds the same rows, and what a source holds beside the sentences survives."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from test_readers import PAIRS, as_rows
from test_readers import write_rows as write_source

from te_trainer.data import outputs, write_rows
from te_trainer.data.other_columns import OtherColumns
from te_trainer.data.outputs import prediction_blocks, write_table
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError

TAKEN = ("sentence1", "sentence2", "prediction")
SCORES = np.array([0.123456789, np.nan, -1.0], dtype=np.float32)
# The last row lacks a note; the first one's needs every mark of a CSV writer, and 17 digits are more than a float has.
ROWS: list[dict[str, Any]] = [
    {
        "id": 12345678901234567,
        "team": "A,1",
        "note": 'say "no"\r\nor\ttab',
        "tags": ["x", "ü"],
        "share": 0.1,
        "ok": True,
    },
    {"id": 2, "team": "B", "note": "", "tags": [], "share": 3, "ok": False},
    {"id": 3, "team": None, "tags": None, "share": None, "ok": None},
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "BLOCK_ROWS", 2)


def scored(source: str, output: Path, **reading: Any) -> Path:
    """Read a source with its other columns and write it with scores."""
    others = OtherColumns(output.with_name("others.jsonl"), TAKEN)
    write_rows(source, output.with_name("pairs.arrow"), others, **reading)
    pairs = Dataset.from_file(str(output.with_name("pairs.arrow")))
    write_table(output, prediction_blocks(pairs, {"prediction": SCORES[: len(pairs)]}, others))
    return output


@pytest.fixture
def jsonl(tmp_path: Path) -> str:
    """A source with columns of every kind."""
    rows = [{"id": row.pop("id"), **pair, **row} for pair, row in zip(as_rows(PAIRS), map(dict, ROWS), strict=True)]
    return write_source(tmp_path / "pairs", "jsonl", rows)


def test_jsonl_keeps_every_value(jsonl: str, tmp_path: Path) -> None:
    lines = scored(jsonl, tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert list(written[0]) == ["sentence1", "sentence2", "prediction", "id", "team", "note", "tags", "share", "ok"]
    for row, pair, score, before in zip(written, PAIRS, [SCORES[0], None, SCORES[2]], ROWS, strict=True):
        assert (row.pop("sentence1"), row.pop("sentence2")) == pair
        value = row.pop("prediction")
        assert value is None if score is None else np.float32(value) == score
        assert row == {"note": None, **before}


def test_csv_keeps_line_breaks_quotes_and_long_numbers(jsonl: str, tmp_path: Path) -> None:
    with scored(jsonl, tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file, strict=True))
    assert [(row["sentence1"], row["sentence2"]) for row in written] == PAIRS
    assert [row["prediction"] for row in written] == ["0.123456791", "", "-1.0"]
    assert [row["id"] for row in written] == ["12345678901234567", "2", "3"]
    assert [row["note"] for row in written] == ['say "no"\r\nor\ttab', "", ""]
    assert [row["tags"] for row in written] == ['["x", "ü"]', "[]", ""]
    assert [row["team"] for row in written] == ["A,1", "B", ""]
    read = [values for _, values in read_rows(str(tmp_path / "scores.csv"), ["sentence1", "sentence2", "note"])]
    assert read == [[*pair, row.get("note", "")] for pair, row in zip(PAIRS, ROWS, strict=True)]


def test_csv_keeps_carriage_returns(tmp_path: Path) -> None:
    texts = ["no\rsound", 'a "\r" b', "a\r\nb", "a\nb", "\r\r"]
    rows = [{"sentence1": f"one {text} more", "sentence2": "two", "note": text} for text in texts[:3]]
    rows += [{"sentence1": "one", "sentence2": f"a{text}, b", "note": text} for text in texts[3:]]
    source = write_source(tmp_path / "pairs", "jsonl", rows)
    others = OtherColumns(tmp_path / "others.jsonl", TAKEN)
    write_rows(source, tmp_path / "pairs.arrow", others)
    pairs = Dataset.from_file(str(tmp_path / "pairs.arrow"))
    output = tmp_path / "scores.csv"
    write_table(output, prediction_blocks(pairs, {"prediction": np.zeros(5, dtype=np.float32)}, others))
    expected = [list(row.values()) for row in rows]
    assert [values for _, values in read_rows(str(output), ["sentence1", "sentence2", "note"])] == expected
    frame = pandas.read_csv(output)
    assert frame[["sentence1", "sentence2", "note"]].to_numpy().tolist() == expected
    with output.open(encoding="utf-8", newline="") as file:
        assert [[row["sentence1"], row["sentence2"], row["note"]] for row in csv.DictReader(file)] == expected


def test_tsv_has_one_line_a_row(jsonl: str, tmp_path: Path) -> None:
    lines = scored(jsonl, tmp_path / "scores.tsv").read_text(encoding="utf-8").split("\n")
    header, first = (line.split("\t") for line in lines[:2])
    assert len(lines) == 5
    assert dict(zip(header, first, strict=True))["note"] == 'say "no"  or tab'


def test_parquet_keeps_numbers_and_truth_values(jsonl: str, tmp_path: Path) -> None:
    table = pq.read_table(scored(jsonl, tmp_path / "scores.parquet"))
    types = [pa.int64(), pa.string(), pa.string(), pa.json_(), pa.float64(), pa.bool_()]
    assert table.schema.types[2:] == [pa.float32(), *types]
    assert table["id"].to_pylist() == [12345678901234567, 2, 3]
    assert table["share"].to_pylist() == [0.1, 3.0, None]
    assert table["ok"].to_pylist() == [True, False, None]


def test_a_column_of_several_kinds_is_text(tmp_path: Path) -> None:
    ids = [7, "A7", 2**70]
    rows = [{**pair, "id": value} for pair, value in zip(as_rows(PAIRS), ids, strict=True)]
    output = scored(write_source(tmp_path / "pairs", "jsonl", rows), tmp_path / "scores.parquet")
    assert pq.read_table(output)["id"].to_pylist() == ["7", "A7", str(2**70)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_integers_that_no_float_holds_are_text_beside_fractions(suffix: str, tmp_path: Path) -> None:
    ids: list[Any] = [2**53 + 1, 1.5, None]
    rows = [
        {**pair, "id": value, "alone": 2**53 + 1, "short": value if value == 1.5 else -(2**53)}
        for pair, value in zip(as_rows(PAIRS), ids, strict=True)
    ]
    output = scored(write_source(tmp_path / "pairs", "jsonl", rows), tmp_path / f"scores.{suffix}")
    if suffix == "csv":
        assert "9007199254740993" in output.read_text() and ",1.5," in output.read_text()
        return
    written = (
        pq.read_table(output).to_pylist()
        if suffix == "parquet"
        else [json.loads(line) for line in output.read_text().splitlines()]
    )
    assert [row["id"] for row in written] == ["9007199254740993", "1.5", None]
    assert [row["alone"] for row in written] == [2**53 + 1] * 3
    assert [row["short"] for row in written] == [-(2.0**53), 1.5, -(2.0**53)]


@pytest.mark.parametrize("kind", ["parquet", "dataset", "dataset-dict"])
def test_numbers_and_dates_of_arrow_sources_survive(kind: str, tmp_path: Path) -> None:
    day = datetime.date(2024, 2, 29)
    extra = [
        {"id": 1, "day": day, "x": 0.5},
        {"id": 2, "day": day, "x": float("nan")},
        {"id": 3, "day": None, "x": None},
    ]
    rows = [{**pair, **more} for pair, more in zip(as_rows(PAIRS), extra, strict=True)]
    table = pq.read_table(scored(write_source(tmp_path / "pairs", kind, rows), tmp_path / "scores.parquet"))
    assert table["id"].to_pylist() == [1, 2, 3] and table["id"].type == pa.int64()
    assert table["day"].to_pylist() == ["2024-02-29", "2024-02-29", None]
    assert table["x"].to_pylist() == [0.5, None, None]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv", "tsv"])
def test_a_nul_in_a_text_leaves_a_file_that_can_be_read(suffix: str, tmp_path: Path) -> None:
    rows = [{"sentence1": "a\0b", "sentence2": "c,\0", "note": "\0"}] * 3
    output = scored(write_source(tmp_path / "pairs", "jsonl", rows), tmp_path / f"scores.{suffix}")
    read = [values for _, values in read_rows(str(output), ["sentence1", "sentence2", "note"])]
    lossless = suffix in {"jsonl", "parquet"}
    assert read == [["a\0b", "c,\0", "\0"] if lossless else ["ab", "c,", ""]] * 3


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_infinite_numbers_survive_where_the_format_has_them(suffix: str, tmp_path: Path) -> None:
    values = [float("inf"), float("-inf"), 0.5]
    rows = [{**pair, "x": value, "list": [value, 2]} for pair, value in zip(as_rows(PAIRS), values, strict=True)]
    output = scored(write_source(tmp_path / "pairs", "parquet", rows), tmp_path / f"scores.{suffix}")
    if suffix == "jsonl":
        written = [json.loads(line, parse_constant=pytest.fail) for line in output.read_text().splitlines()]
        assert [row["x"] for row in written] == [None, None, 0.5]
        assert [row["list"] for row in written] == [[None, 2], [None, 2], [0.5, 2]]
        return
    table = pandas.read_csv(output) if suffix == "csv" else pq.read_table(output).to_pandas()
    assert table["x"].tolist() == values
    texts = [value if isinstance(value, str) else json.dumps(value) for value in table["list"]]
    assert [json.loads(text, parse_constant=pytest.fail)[0] for text in texts] == [None, None, 0.5]


def test_a_blank_line_and_a_column_without_name_are_no_obstacle(tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("question,,id,sentence2,\na,x,7,b,\n\nc,y,8,d,\n", encoding="utf-8")
    output = scored(str(source), tmp_path / "scores.csv", columns={"sentence1": "question"})
    assert output.read_text(encoding="utf-8").split("\n") == [
        "sentence1,sentence2,prediction,id",
        "a,b,0.123456791,7",
        ",,,",
        "c,d,-1.0,8",
        "",
    ]


def test_a_key_without_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"": 1, "sentence1": "a", "sentence2": "b", "id": 2}\n')
    output = scored(str(tmp_path / "pairs.jsonl"), tmp_path / "scores.csv")
    assert output.read_text(encoding="utf-8") == "sentence1,sentence2,prediction,id\na,b,0.123456791,2\n"


def test_a_date_that_python_cannot_hold_is_named(tmp_path: Path) -> None:
    far = pa.array([400_000_000_000_000], pa.timestamp("s"))
    source = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"sentence1": ["a"], "sentence2": ["b"], "far": far}), source)
    with pytest.raises(InputError, match=rf"^{source}, rows 1 to 1: Python cannot hold a value .*--data\.keep false$"):
        scored(str(source), tmp_path / "scores.csv")
    write_rows(str(source), tmp_path / "pairs.arrow")


def test_rows_of_a_split_keep_their_gold_scores(tmp_path: Path) -> None:
    rows = [{"split": split, "score": split, **pair} for split, pair in zip("aba", as_rows(PAIRS), strict=True)]
    for kind in ("tsv", "parquet", "jsonl"):
        output = scored(write_source(tmp_path / kind, kind, rows), tmp_path / "scores.jsonl", split="a")
        written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert [(row["sentence1"], row["split"], row["score"]) for row in written] == [
            (PAIRS[0][0], "a", "a"),
            (PAIRS[2][0], "a", "a"),
        ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("sentence1,sentence2,prediction", r"pairs\.csv, line 2: the column 'prediction' has the name of one that the"),
        ("question,sentence2,sentence1", r"pairs\.csv, line 2: the column 'sentence1' has the name of one that the"),
        ("sentence1,sentence2,id,id", r"pairs\.csv: several columns are named 'id'; rename all but one, or leave"),
    ],
)
def test_names_that_would_collide_are_refused(header: str, message: str, tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text(f"{header}\n{','.join('abcd'[: header.count(',') + 1])}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        scored(str(source), tmp_path / "scores.csv", columns={"sentence1": "question"})
    write_rows(str(source), tmp_path / "pairs.arrow", columns={"sentence1": "question"})
    assert len(Dataset.from_file(str(tmp_path / "pairs.arrow"))) == 1


def test_half_a_character_in_another_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "id": "\\ud800"}\n')
    with pytest.raises(InputError, match="line 1: half a character"):
        scored(str(tmp_path / "pairs.jsonl"), tmp_path / "scores.jsonl")
