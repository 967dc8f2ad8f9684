"""Gold sets: which rows they are, what is dropped, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pytest
from conftest import GOLD_FOLDER, SAMPLE
from datasets import Dataset, DatasetDict
from test_readers import FILES, put_into_hub_cache, write_rows

from te_trainer.data import load_gold
from te_trainer.errors import InputError

Role = Literal["dev", "test"]


def gold_rows(scores: list[Any], split: str | None = None) -> list[dict[str, Any]]:
    return [
        {**({"split": split} if split else {}), "score": score, "sentence1": f"one {number}", "sentence2": "two"}
        for number, score in enumerate(scores)
    ]


@pytest.mark.parametrize("kind", [*FILES, "dataset"])
@pytest.mark.parametrize("role", ["dev", "test"])
def test_a_file_without_splits_is_taken_whole(tmp_path: Path, kind: str, role: Role) -> None:
    gold = load_gold(write_rows(tmp_path / "mine", kind, gold_rows([0.5, 4.25, 3.0])), role, {})
    assert gold.name == "mine"
    assert gold.scores.dtype == np.float64
    assert gold.scores.tolist() == [0.5, 4.25, 3.0]
    assert gold.sentence1 == ["one 0", "one 1", "one 2"]
    assert gold.sentence2 == ["two", "two", "two"]
    assert (len(gold), gold.unscored) == (3, 0)


@pytest.mark.parametrize("kind", [*FILES, "dataset"])
def test_rows_without_a_score_are_dropped_and_counted(tmp_path: Path, kind: str) -> None:
    gold = load_gold(write_rows(tmp_path / "mine", kind, gold_rows([None, 1.0, None, 2.0])), "test", {})
    assert (gold.unscored, gold.scores.tolist(), gold.sentence1) == (2, [1.0, 2.0], ["one 1", "one 3"])


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_blank_lines_are_no_rows(tmp_path: Path, kind: str) -> None:
    path = Path(write_rows(tmp_path / "mine", kind, gold_rows([1.0, None, 2.0])))
    path.write_text(path.read_text(encoding="utf-8").replace("\n", "\n \n"), encoding="utf-8")
    gold = load_gold(str(path), "test", {})
    assert (gold.scores.tolist(), gold.unscored) == ([1.0, 2.0], 1)


def test_blank_lines_do_not_move_the_papers_slices(tmp_path: Path) -> None:
    path = Path(write_rows(tmp_path / "qnli", "tsv", gold_rows(list(range(1003)), "dev")))
    head, rest = path.read_text(encoding="utf-8").split("\n", 1)
    path.write_text(f"{head}\n\n\n{rest}", encoding="utf-8")
    assert load_gold("qnli", "test", {}, str(tmp_path)).scores.tolist() == [1000, 1001, 1002]


def test_a_score_of_blanks_is_no_score(tmp_path: Path) -> None:
    gold = load_gold(write_rows(tmp_path / "mine", "tsv", gold_rows(["1", "  ", " 2 "])), "test", {})
    assert (gold.unscored, gold.scores.tolist()) == (1, [1.0, 2.0])


@pytest.mark.parametrize("kind", [*FILES, "dataset"])
def test_a_file_with_a_split_column_gives_the_rows_of_the_role(tmp_path: Path, kind: str) -> None:
    rows = [*gold_rows([9.0, 9.5], "train"), *gold_rows([1.0, 2.0, None], "dev"), *gold_rows([3.0, 4.0], "test")]
    source = write_rows(tmp_path / "mine", kind, rows)
    dev, test = load_gold(source, "dev", {}), load_gold(source, "test", {})
    assert (dev.scores.tolist(), dev.unscored) == ([1.0, 2.0], 1)
    assert (test.scores.tolist(), test.unscored) == ([3.0, 4.0], 0)


def test_a_saved_dataset_dict_gives_the_split_of_the_role(tmp_path: Path) -> None:
    splits = {"dev": gold_rows([1.0, 2.0]), "test": gold_rows([3.0, 4.0])}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(str(tmp_path / "mine"))
    assert load_gold(str(tmp_path / "mine"), "dev", {}).scores.tolist() == [1.0, 2.0]
    assert load_gold(str(tmp_path / "mine"), "test", {}).scores.tolist() == [3.0, 4.0]


def test_columns_are_mapped(tmp_path: Path) -> None:
    rows = [{"q": "one", "a": "two", "similarity": score} for score in (1, 2)]
    source = write_rows(tmp_path / "mine", "jsonl", rows)
    gold = load_gold(source, "test", {"sentence1": "q", "sentence2": "a", "score": "similarity"})
    assert (gold.sentence1, gold.sentence2, gold.scores.tolist()) == (["one", "one"], ["two", "two"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "split", "rows", "dev", "test"),
    [
        ("qnli", "dev", 1500, range(1000), range(1000, 1500)),
        ("qqp", "sample", 12_000, range(1000), range(1000, 11_000)),
    ],
)
def test_dev_and_test_are_the_papers_slices_of_one_split(
    tmp_path: Path, name: str, split: str, rows: int, dev: range, test: range
) -> None:
    write_rows(tmp_path / name, "tsv", [*gold_rows([7, 8], "train"), *gold_rows(list(range(rows)), split)])
    assert load_gold(name, "dev", {}, str(tmp_path)).scores.tolist() == list(dev)
    assert load_gold(name, "test", {}, str(tmp_path)).scores.tolist() == list(test)


def test_sickr_is_chosen_by_its_trial_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "sickr", "tsv", [*gold_rows([1, 2], "trial"), *gold_rows([4, 5], "test")])
    assert load_gold("sickr", "dev", {}, str(tmp_path)).scores.tolist() == [1, 2]
    assert load_gold("sickr", "test", {}, str(tmp_path)).scores.tolist() == [4, 5]


@pytest.mark.skipif(not GOLD_FOLDER.is_dir(), reason="the measuring sets are not here")
@pytest.mark.parametrize(
    ("name", "role", "rows"),
    [
        ("stsb", "dev", 1500),
        ("stsb", "test", 1379),
        ("qnli", "dev", 1000),
        ("qnli", "test", 4463),
        ("mrpc", "test", 1725),
        ("sts12", "test", 3108),
        ("sts13", "test", 1500),
        ("sts14", "test", 3750),
        ("sts15", "test", 3000),
    ],
)
def test_real_sets_have_as_many_rows_as_their_authors_say(name: str, role: Role, rows: int) -> None:
    gold = load_gold(name, role, {}, str(GOLD_FOLDER))
    assert (gold.name, len(gold) + gold.unscored) == (name, rows)
    top = 1 if name in {"qnli", "mrpc"} else 5
    assert (gold.scores.min(), gold.scores.max()) == (0, top)


@pytest.mark.parametrize(("name", "role"), [("dev", "dev"), ("test", "test")])
def test_the_samples_scores_cover_the_range(name: str, role: Role) -> None:
    gold = load_gold(str(SAMPLE / f"{name}.tsv"), role, {})
    assert len(gold) >= 200
    assert (gold.scores.min(), gold.scores.max(), gold.unscored) == (0, 5, 0)


def test_the_hubs_columns_splits_and_labels_become_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    questions = [{"question": f"q{number}", "sentence": "s", "label": number % 2} for number in range(1004)]
    put_into_hub_cache(tmp_path, "nyu-mll/glue", "qnli", {"train": questions[:2], "validation": questions})
    pairs = [{"sentence1": "x", "sentence2": "y", "label": label, "idx": 0} for label in (0, 1, 1)]
    put_into_hub_cache(tmp_path, "nyu-mll/glue", "mrpc", {"train": pairs[:1], "validation": pairs[1:], "test": pairs})
    scored = [{"sentence1": "x", "sentence2": "y", "score": score} for score in (0.5, 4.75)]
    put_into_hub_cache(tmp_path, "mteb/stsbenchmark-sts", None, {"train": scored[:1], "validation": scored})

    qnli = load_gold("qnli", "test", {})
    assert (qnli.sentence1, qnli.sentence2) == (["q1000", "q1001", "q1002", "q1003"], ["s"] * 4)
    # In GLUE entailment is 0; here, as in the paper, it is 1.
    assert qnli.scores.tolist() == [1, 0, 1, 0]
    assert len(load_gold("qnli", "dev", {})) == 1000
    assert load_gold("mrpc", "test", {}).scores.tolist() == [0, 1, 1]
    assert load_gold("stsb", "dev", {}).scores.tolist() == [0.5, 4.75]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (gold_rows([1, "high"]), r"mine\.tsv, line 3: the gold score 'high' is not a number"),
        (gold_rows([1, "nan"]), r"mine\.tsv, line 3: the gold score 'nan' is not a number"),
        (gold_rows([1, "inf"]), r"mine\.tsv, line 3: the gold score 'inf' is not a number"),
        (gold_rows([3, "3.0", 3]), r"data\.dev: all gold scores in .*mine\.tsv are 3"),
        (gold_rows([3, None]), r"data\.dev: .*mine\.tsv holds 1 rows with gold scores; at least two"),
        (gold_rows([1, 2], "test"), r"data\.dev: .*mine\.tsv holds 0 rows with gold scores"),
        ([{"sentence1": "x", "sentence2": "y"}], r"mine\.tsv: no column 'score' among sentence1, sentence2"),
    ],
)
def test_scores_that_cannot_rank_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    source = write_rows(tmp_path / "mine", "tsv", rows)
    with pytest.raises(InputError, match=message):
        load_gold(source, "dev", {})


@pytest.mark.parametrize("kind", FILES)
def test_a_scored_row_without_a_sentence_is_refused(tmp_path: Path, kind: str) -> None:
    rows = [*gold_rows([1.0, 2.0]), {"score": 3.0, "sentence1": "one", "sentence2": None}]
    source = write_rows(tmp_path / "mine", kind, rows)
    with pytest.raises(InputError, match=rf"mine\.{kind}, .* a sentence is missing"):
        load_gold(source, "dev", {})


def test_a_scored_row_with_a_number_for_a_sentence_says_which(tmp_path: Path) -> None:
    rows = [*gold_rows([1.0, 2.0]), {"score": 3.0, "sentence1": "one", "sentence2": 7}]
    source = write_rows(tmp_path / "mine", "jsonl", rows)
    with pytest.raises(InputError, match=r"mine\.jsonl, .*: sentence2 is a number \(7\); make the column text$"):
        load_gold(source, "dev", {})


def test_a_set_without_dev_rows_chooses_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "sts12", "tsv", gold_rows([1, 2], "test"))
    with pytest.raises(InputError, match=r"data\.dev: sts12 has no dev rows"):
        load_gold("sts12", "dev", {}, str(tmp_path))


def test_text_files_hold_no_scores(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("one||two\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.txt: a \.txt file has no column 'score'"):
        load_gold(str(tmp_path / "mine.txt"), "dev", {})


def test_decimal_commas_are_named_as_such(tmp_path: Path) -> None:
    rows = ["sentence1;sentence2;score", "one;two;0,5", "three;four;0,25"]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"'0,5' is not a number; write decimals with a point in the whole file$"):
        load_gold(str(tmp_path / "mine.csv"), "test", {})


def test_booleans_of_pandas_are_scores(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("sentence1,sentence2,score\na,b,True\nc,d,False\ne,f,true\n", encoding="utf-8")
    assert load_gold(str(tmp_path / "mine.csv"), "test", {}).scores.tolist() == [1, 0, 1]


@pytest.mark.parametrize("score", [10**4000, "1" * 10_000, float("nan"), float("inf"), "NaN"], ids=range(5))
def test_a_score_that_is_no_finite_number_is_refused(tmp_path: Path, score: Any) -> None:
    source = write_rows(tmp_path / "mine", "jsonl", gold_rows([0.5, score, 3.0]))
    with pytest.raises(InputError, match=r"mine\.jsonl, line 2: the gold score '\w{3,100}' is not a number; correct"):
        load_gold(source, "test", {})
