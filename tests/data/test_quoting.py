"""Quotes of a .tsv: what a CSV writer put around a cell goes, what belongs to a sentence stays, and both are said."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas
import pytest

from te_trainer.config.schema import ContrastiveDataConfig, DataConfig
from te_trainer.data import build_pool, build_sentences, load_gold, write_rows
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError

WANTED = ["sentence1", "sentence2"]
QUOTING = {"minimal": csv.QUOTE_MINIMAL, "all": csv.QUOTE_ALL, "texts": csv.QUOTE_NONNUMERIC}

# Sentences with every mark that a CSV writer has to care for.
PAIRS = [
    ('he said "stop" now', "plain"),
    ('"Stop" he said "now"', 'an inch is written 1"'),
    ("plain again", 'ends with "these"'),
    ('"', '""'),
    ("a tab\tinside", "over\ntwo lines"),
    ('"over\n\nthree" lines', "x"),
    ("x", 'one\tand "two"\nand three'),
    ("the last", "one"),
]
# The same kind of sentences without quoting, which no CSV writer would write so.
UNQUOTED = [
    ('"Stop" he said "now"', "plain"),
    ('"nothing closes this', "plain"),
    ('closes" what was not opened', '"whole sentence"'),
    ('"opened here', 'closed there"'),
    ("battery's", '"the battery""s state"'),
]


def read(path: Path, notes: list[str] | None = None) -> list[tuple[str, ...]]:
    return [tuple(values) for _, values in read_rows(str(path), WANTED, {}, notes=notes)]


def unquoted_file(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{one}\t{two}\n" for one, two in [("sentence1", "sentence2"), *rows]), newline="")
    return path


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("quoting", QUOTING)
@pytest.mark.parametrize("terminator", ["\n", "\r\n"])
def test_what_a_csv_writer_quoted_is_read_as_it_was(tmp_path: Path, quoting: str, terminator: str, bom: str) -> None:
    path = tmp_path / "pairs.tsv"
    table = pandas.DataFrame([{"score": 0.5, "sentence1": one, "sentence2": two} for one, two in PAIRS])
    text = table.to_csv(sep="\t", index=False, quoting=QUOTING[quoting], lineterminator=terminator)
    path.write_bytes((bom + text).encode())
    notes: list[str] = []
    assert read(path, notes) == PAIRS
    quoted = {"minimal": 10, "all": 3 + 3 * len(PAIRS), "texts": 3 + 2 * len(PAIRS)}[quoting]
    assert notes == [f"{path}: {quoted} cells were quoted as CSV writers do; their quotes were taken off"]


def test_quotes_of_a_file_without_quoting_stay(tmp_path: Path) -> None:
    path = unquoted_file(tmp_path / "pairs.tsv", UNQUOTED)
    notes: list[str] = []
    assert read(path, notes) == UNQUOTED
    assert notes == [
        f"{path}: 1 sentences begin and end with a quote and double those inside, as CSV writers do; they were left as "
        "they stand"
    ]


@pytest.mark.parametrize("row", UNQUOTED[:-1])
def test_one_sentence_that_no_csv_writer_writes_decides(tmp_path: Path, row: tuple[str, str]) -> None:
    rows = [('"whole sentence"', "x"), row]
    notes: list[str] = []
    assert read(unquoted_file(tmp_path / "pairs.tsv", rows), notes) == rows
    assert not notes
    rows = [('"he said ""stop"" now"', "x"), row]
    assert read(unquoted_file(tmp_path / "pairs.tsv", rows), notes) == rows
    assert len(notes) == 1


def test_whole_sentences_in_quotes_stay(tmp_path: Path) -> None:
    rows = [('"Stop."', '"Go."'), ('"He went."', "x")]
    assert read(unquoted_file(tmp_path / "pairs.tsv", rows)) == rows


def test_cells_that_excel_quoted_for_their_commas_are_read_as_they_were(tmp_path: Path) -> None:
    rows = [('"Yes, it does."', "No"), ("x", '"after all, no"'), ('"Well, yes, no"', '"so, so"')]
    notes: list[str] = []
    path = unquoted_file(tmp_path / "pairs.tsv", rows)
    assert read(path, notes) == [("Yes, it does.", "No"), ("x", "after all, no"), ("Well, yes, no", "so, so")]
    assert notes == [f"{path}: 4 cells were quoted as CSV writers do; their quotes were taken off"]


@pytest.mark.parametrize("row", [("no, thanks", "x"), ('"Yes, it does."', "no, thanks"), ('"Go."', '"Yes, go."')])
def test_a_comma_without_quotes_or_quotes_without_a_comma_are_not_excels(tmp_path: Path, row: tuple[str, str]) -> None:
    rows = [('"Yes, it does."', "x"), row]
    notes: list[str] = []
    assert read(unquoted_file(tmp_path / "pairs.tsv", rows), notes) == rows
    assert not notes


def test_a_line_break_in_a_file_without_quoting_is_named(tmp_path: Path) -> None:
    path = unquoted_file(tmp_path / "pairs.tsv", [('"Stop" he said', "x"), ('"over\ntwo"', "x")])
    with pytest.raises(InputError, match=r"pairs\.tsv, line 3: 1 columns where the header has 2"):
        read(path)


def test_a_benchmark_of_a_folder_has_no_quoting(tmp_path: Path) -> None:
    text = 'split\tscore\tsentence1\tsentence2\ntest\t1\t"the battery""s state"\tx\ntest\t2\ty\tx\n'
    (tmp_path / "sts12.tsv").write_text(text)
    gold = load_gold("sts12", "test", {}, str(tmp_path))
    assert gold.sentence1 == ['"the battery""s state"', "y"]
    assert gold.notes == ()
    pool = build_pool(DataConfig(pool=["sts12"], dir=str(tmp_path)), tmp_path / "pool")
    assert pool.sources[0].notes == []


def test_everyone_who_reads_a_file_says_what_was_done(tmp_path: Path) -> None:
    rows = [{"sentence1": one, "sentence2": two, "score": number} for number, (one, two) in enumerate(PAIRS)]
    path = tmp_path / "pairs.tsv"
    pandas.DataFrame(rows).to_csv(path, sep="\t", index=False)
    note = f"{path}: 10 cells were quoted as CSV writers do; their quotes were taken off"
    assert f"pool: {note}" in build_pool(DataConfig(pool=[str(path)]), tmp_path / "pool").describe()
    assert (
        f"sentences: {note}"
        in build_sentences(ContrastiveDataConfig(sentences=[str(path)]), tmp_path / "sentences").describe()
    )
    assert load_gold(str(path), "test", {}).notes == (note,)
    assert write_rows(str(path), tmp_path / "rows.arrow") == [note]


@pytest.mark.parametrize("name", ["faq.txt", "FAQ.TXT"])
def test_quotes_of_a_text_file_stay_and_are_counted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('"he said ""stop"" now"\n"Stop" he said "now"\n')
    found = build_sentences(ContrastiveDataConfig(sentences=[str(path)]), tmp_path / "sentences")
    assert found.num_rows == 2
    assert found.sources[0].notes == [
        f"{path}: 1 sentences begin and end with a quote and double those inside, as CSV writers do; they were left as "
        "they stand"
    ]
