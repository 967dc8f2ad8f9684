"""Distinct sentences from every kind of source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from te_trainer.config.schema import ContrastiveDataConfig
from te_trainer.data import SentenceManifest, build_sentences
from te_trainer.errors import InputError
from te_trainer.mining.candidates import document_pairs

LINES = [
    "my router blinks red",
    "",
    "no sound ",
    "red light||the speaker is silent",
    "no sound",
    "my router blinks red",
]
DISTINCT = ["my router blinks red", "no sound", "red light", "the speaker is silent"]


def texts(folder: Path) -> list[str]:
    """The sentences in their order; both columns hold them."""
    _, pairs = SentenceManifest.load(folder)
    assert pairs["sentence1"][:] == pairs["sentence2"][:]
    return pairs["sentence1"][:]


def written(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["s.txt", "FAQ.TXT"])
@pytest.mark.parametrize("column", [None, "text"])
def test_a_text_file_has_a_sentence_a_line(tmp_path: Path, name: str, column: str | None) -> None:
    source = written(tmp_path / name, LINES)
    found = build_sentences(ContrastiveDataConfig(sentences=[source], column=column), tmp_path / "out")
    assert texts(tmp_path / "out") == DISTINCT
    assert (found.sources[0].rows, found.sources[0].empty, found.duplicates, found.num_rows) == (7, 1, 2, 4)
    assert found.describe() == [
        f"sentences: {source}: 7 read, 1 empty ones dropped",
        f"sentences: {source}: 1 lines were split at ||, which stands between sentences",
        "sentences: 4 distinct ones (2 duplicates dropped)",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sentences.arrow", "sentences.json"]


def test_pairs_give_the_sentences_of_both_columns(tmp_path: Path) -> None:
    source = written(tmp_path / "p.tsv", ["q\tsplit\tsentence2", "a b\ttrain\tc d", "c d\ttest\te f"])
    build_sentences(ContrastiveDataConfig(sentences=[source], columns={"sentence1": "q"}), tmp_path / "all")
    assert texts(tmp_path / "all") == ["a b", "c d", "e f"]
    build_sentences(
        ContrastiveDataConfig(sentences=[source], columns={"sentence1": "q"}, split="train"), tmp_path / "train"
    )
    assert texts(tmp_path / "train") == ["a b", "c d"]


def test_one_column_can_be_read_alone(tmp_path: Path) -> None:
    rows = [{"text": "a b", "id": 1}, {"text": None, "id": 2}, {"text": "c d", "id": 3}]
    source = written(tmp_path / "t.jsonl", [json.dumps(row) for row in rows])
    saved = tmp_path / "saved"
    Dataset.from_dict({"text": ["c d", "e f"]}).save_to_disk(str(saved))
    build_sentences(ContrastiveDataConfig(sentences=[source, str(saved)], column="text"), tmp_path / "out")
    assert texts(tmp_path / "out") == ["a b", "c d", "e f"]


def test_a_sample_follows_from_the_seed_and_keeps_the_order(tmp_path: Path) -> None:
    source = written(tmp_path / "s.txt", [f"sentence {number}" for number in range(50)])
    drawn = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        found = build_sentences(ContrastiveDataConfig(sentences=[source], max_sentences=10), tmp_path / name, seed=seed)
        drawn[name] = texts(tmp_path / name)
        assert (found.distinct, found.num_rows) == (50, 10)
        assert "drawn of 50" in found.describe()[-1]
    assert drawn["a"] == drawn["b"] != drawn["c"]
    assert drawn["a"] == sorted(drawn["a"], key=lambda text: int(text.split()[1]))


def test_more_sentences_than_a_block_stay_whole(tmp_path: Path) -> None:
    source = written(tmp_path / "s.txt", [f"sentence {number % 12_345}" for number in range(25_000)])
    found = build_sentences(ContrastiveDataConfig(sentences=[source]), tmp_path / "out")
    assert (found.num_rows, found.duplicates) == (12_345, 12_655)
    assert texts(tmp_path / "out") == [f"sentence {number}" for number in range(12_345)]


def test_the_sentences_of_a_pool(tmp_path: Path) -> None:
    pool = Dataset.from_dict({"sentence1": ["a", "b", "a"], "sentence2": ["c", "a", "d"]})
    found = build_sentences(ContrastiveDataConfig(sentences=[]), tmp_path / "out", pool=pool)
    assert texts(tmp_path / "out") == ["a", "c", "b", "d"]
    # sentences that stand in both columns count once
    again = build_sentences(
        ContrastiveDataConfig(), tmp_path / "again", pool=SentenceManifest.load(tmp_path / "out")[1]
    ).describe()
    assert again == ["sentences: the run's texts: 4 read", "sentences: 4 distinct ones (0 duplicates dropped)"]
    assert (
        found.fingerprint
        == build_sentences(
            ContrastiveDataConfig(sentences=[written(tmp_path / "s.txt", ["a", "c", "b", "d"])]), tmp_path / "two"
        ).fingerprint
    )


@pytest.mark.parametrize(
    ("name", "lines", "column", "words"),
    [
        ("none.txt", None, None, "none.txt: the file does not exist"),
        ("s.txt", ["", "  "], None, "data.sentences: no sentence in .*s.txt"),
        ("s.jsonl", ['{"text": 3}'], "text", r"s.jsonl, line 1: text is a number \(3\); make the column text"),
        (
            "s.csv",
            ["id,text", "1,a b"],
            None,
            "s.csv: no column 'sentence1' among id, text; map it with data.columns .if its first line is a pair .*, or "
            "name the one column of texts with data.column$",
        ),
        ("s.tsv", ["text", "a b"], "body", "s.tsv: no column 'body' among text; .*if its first line is a text already"),
    ],
)
def test_what_holds_no_sentences_is_named(
    name: str, lines: list[str] | None, column: str | None, words: str, tmp_path: Path
) -> None:
    source = str(tmp_path / name) if lines is None else written(tmp_path / name, lines)
    with pytest.raises(InputError, match=words):
        build_sentences(ContrastiveDataConfig(sentences=[source], column=column), tmp_path / "out")


def test_broken_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"fine\n\xff broken\n")
    with pytest.raises(InputError, match=r"s\.txt, line 2: not UTF-8"):
        build_sentences(ContrastiveDataConfig(sentences=[str(tmp_path / "s.txt")]), tmp_path / "out")


def test_documents_follow_their_sentences(tmp_path: Path) -> None:
    lines = ["doc,text", "1,a", "1,b", "2,c", "2,a", "2,d", "1,", "1,e"]
    build_sentences(
        ContrastiveDataConfig(sentences=[written(tmp_path / "s.csv", lines)], column="text"),
        tmp_path / "out",
        document="doc",
    )
    documents = np.load(tmp_path / "out" / "documents.npy")
    assert texts(tmp_path / "out") == ["a", "b", "c", "d", "e"]
    one, two, three = documents[0], documents[2], documents[3]
    assert len({one, two, three}) == 3
    # c and d do not stand side by side: the second a, which was dropped, is between them
    assert documents.tolist() == [one, one, two, three, one]


def test_sentences_are_neighbours_where_no_dropped_one_stands_between_them(tmp_path: Path) -> None:
    rows = [(1, "a"), (2, "b"), (1, "c"), (2, "a"), (2, "d"), (1, "e"), (1, "c"), (1, "f"), (1, "g"), (2, "h")]
    lines = [json.dumps({"doc": document, "text": text}) for document, text in rows]
    data = ContrastiveDataConfig(sentences=[written(tmp_path / "s.jsonl", lines)], column="text")
    build_sentences(data, tmp_path / "out", document="doc")
    documents, found = np.load(tmp_path / "out" / "documents.npy"), texts(tmp_path / "out")
    pairs = document_pairs(documents, np.arange(len(documents)))
    assert {"".join(found[row] for row in pair) for pair in pairs.tolist()} == {"ac", "ce", "fg", "dh"}


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet"])
def test_a_sentence_without_a_document_is_alone(tmp_path: Path, name: str) -> None:
    rows = [("a", 1), ("b", None), ("c", None), ("d", 2), ("e", None), ("f", 2)]
    if name == "s.csv":
        written(tmp_path / name, ["text,doc", *(f"{text},{' ' if doc is None else doc}" for text, doc in rows)])
    elif name == "s.jsonl":
        written(tmp_path / name, [json.dumps({"text": text, "doc": doc}) for text, doc in rows])
    else:
        column, documents = zip(*rows, strict=True)
        pq.write_table(pa.table({"text": column, "doc": np.array(documents, dtype=float)}), tmp_path / name)
    data = ContrastiveDataConfig(sentences=[str(tmp_path / name)], column="text")
    build_sentences(data, tmp_path / "out", document="doc")
    found = np.load(tmp_path / "out" / "documents.npy").tolist()
    assert found[3] == found[5] and len(set(found)) == 5


def test_a_text_file_has_no_documents(tmp_path: Path) -> None:
    source = written(tmp_path / "s.txt", ["a", "b"])
    with pytest.raises(InputError, match=r"s\.txt: a \.txt file has no column 'doc' \(data\.document\)"):
        build_sentences(ContrastiveDataConfig(sentences=[source]), tmp_path / "out", document="doc")
