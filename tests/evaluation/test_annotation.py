"""Pairs of a finished run that are chosen for a person to score."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from conftest import Run, brief_gold, results_of, tiny_arguments
from datasets import Dataset
from forked import run_forked

from te_trainer.data import PoolManifest, load_gold
from te_trainer.evaluation.annotation import BANDS, GUIDELINES, annotation_file, telling_rows
from te_trainer.files.locks import lock_output_file
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.saved import read_labels


def test_half_of_the_pairs_moved_most_and_all_bands_have_as_many() -> None:
    rng = np.random.default_rng(0)
    start = rng.random(1000)
    result = start.copy()
    moved = np.argsort(start)[::50]  # one in each twentieth of the range
    result[moved] = 1 - result[moved]
    rows = telling_rows(start, result, 50, seed=1)
    assert len(set(rows.tolist())) == 50
    bands = np.searchsorted(np.quantile(start, np.linspace(0, 1, BANDS + 1)[1:-1]), start[rows])
    assert np.bincount(bands).tolist() == [10] * BANDS
    far = [row for row in moved if abs(result[row] - start[row]) > 0.3]
    assert set(far) <= set(rows.tolist())
    assert (telling_rows(start, result, 50, seed=1) == rows).all()
    assert (telling_rows(start, result, 50, seed=2) != rows).any()


@pytest.mark.parametrize("pairs", [1, 4, 7])
def test_a_small_pool_is_chosen_whole(pairs: int) -> None:
    scores = np.arange(pairs, dtype=np.float32)
    assert sorted(telling_rows(scores, -scores, 50, seed=0)) == list(range(pairs))


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("annotated") / "run"
    more = ["--distillation.cycles", "1", "--bi_encoder.prompt", "it's my router: ", *brief_gold(output.parent)]
    done = run_forked("trans_encoder.py", tiny_arguments(tiny, output, *more))
    assert done.returncode == 0, done.stderr
    return output


def annotate(run: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_forked("annotate.py", [str(run), "--output", str(output), *more])


HEADER = ["score", "sentence1", "sentence2"]
QUOTES = [('"E05', 'code "late"'), ("cable torn", 'torn"'), ("plain", "words"), ('"both"', "sides")]


FORMULAS = [("=1+1", '+49 "free"'), ("-0.5 degrees", "@home")]


@pytest.mark.parametrize("pairs", [QUOTES, QUOTES[:1], QUOTES[2:3], FORMULAS], ids=str)
def test_a_spreadsheet_and_the_reader_see_the_same_quotes(pairs: list[tuple[str, str]], tmp_path: Path) -> None:
    columns = dict(zip(("sentence1", "sentence2"), map(list, zip(*pairs, strict=True)), strict=True))
    text = annotation_file(Dataset.from_dict(columns), "sts")
    shown = list(csv.reader(text.splitlines(keepends=True), dialect="excel-tab"))[-len(pairs) :]
    assert [tuple(cell.removeprefix(" ") for cell in row) for row in shown] == [("", *pair) for pair in pairs]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in shown for cell in row)
    scored = [["1", *row[1:]] for row in shown] + [["2", "more", "words"]]
    lines = text.splitlines()
    by_hand = [*lines[: -len(pairs)], *(f"1{line}" for line in lines[-len(pairs) :]), "2\tmore\twords"]
    (tmp_path / "by_hand.tsv").write_text("\n".join(by_hand) + "\n", encoding="utf-8")
    with (tmp_path / "saved.tsv").open("w", encoding="utf-8", newline="") as saved:
        csv.writer(saved, dialect="excel-tab").writerows(
            [*([line] for line in lines[: -len(pairs) - 1]), HEADER, *scored]
        )
    for name in ("by_hand.tsv", "saved.tsv"):
        gold = load_gold(str(tmp_path / name), "test", {})
        assert list(zip(gold.sentence1, gold.sentence2, strict=True)) == [*pairs, ("more", "words")], name


def test_the_file_that_is_filled_in_is_a_set_with_gold_scores(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "my labels.tsv"
    done = annotate(run, file, "--pairs", "12")
    assert done.returncode == 0, done.stderr
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[:3] == ["te-trainer", "evaluate", "--models"]
    lines = file.read_text(encoding="utf-8").splitlines()
    guideline = [line for line in lines if line.startswith("# ")]
    assert guideline[0] == f"# {GUIDELINES['sts'][0]}"
    header, *rows = lines[len(guideline) :]
    assert header.split("\t") == ["score", "sentence1", "sentence2"]
    assert len(rows) == 12 and all(row.startswith("\t") for row in rows)
    filled = [f"{number % 6}{row}" for number, row in enumerate(rows[:11])] + rows[11:]
    file.write_text("\n".join([*guideline, header, *filled]) + "\n", encoding="utf-8")
    gold = load_gold(str(file), "test", {})
    assert gold.scores.tolist() == [number % 6 for number in range(11)]
    assert gold.unscored == 1
    # a spreadsheet gives each line as many cells as the widest
    for name, dialect in (("tabs.tsv", "excel-tab"), ("commas.csv", "excel"), ("quoted.tsv", None)):
        how = {"dialect": dialect} if dialect else {"delimiter": "\t", "quoting": csv.QUOTE_ALL}
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as saved:
            table = [*([line, "", ""] for line in guideline), *(row.split("\t") for row in (header, *filled))]
            csv.writer(saved, **how).writerows(table)
        again = load_gold(str(tmp_path / name), "test", {})
        assert (again.sentence1, again.scores.tolist()) == (gold.sentence1, gold.scores.tolist()), name

    # the command that it printed compares the start as the run used it: the same cosines
    output = command.index("--output_dir") + 1
    compared = run_forked("evaluate_sts.py", [*command[2:output], str(tmp_path / "compared")])
    assert compared.returncode == 0, compared.stderr
    results = results_of(tmp_path / "compared")
    start = results["models"][0]["members"][0]
    assert (start["pooling"], start["max_length"], start["prompt"]) == ("mean", 32, "it's my router: ")
    layout, (_, pool) = RunLayout(run), PoolManifest.load(RunLayout(run).pool)
    labels = read_labels(layout.labels(1, "tiny", "bi-encoder"), {}, len(pool), delete="", then="")
    of_pair = dict(zip(zip(pool["sentence1"], pool["sentence2"], strict=True), labels, strict=True))
    found = RunLayout(tmp_path / "compared").model_predictions(results["models"][0]["name"]) / "my labels.parquet"
    scored = pyarrow.parquet.read_table(found).to_pylist()
    expected = [of_pair[row["sentence1"], row["sentence2"]] for row in scored]
    assert [row["prediction"] for row in scored] == pytest.approx(expected, abs=1e-5) and len(scored) == 11
    assert results["differences"][0]["tasks"]["my labels"].keys() == {"difference", "interval"}


@pytest.mark.parametrize(
    ("pairs", "amount", "is_part"), [(1, "1 pair is", False), (12, "12 pairs are", True), (500, "96 pairs are", False)]
)
def test_how_pairs_were_chosen_is_said_of_a_part(
    run: Path, run_job: Run, pairs: int, amount: str, is_part: bool, tmp_path: Path
) -> None:
    done = run_job("annotate", run, "--output", tmp_path / "some.tsv", "--pairs", str(pairs))
    assert done.out.startswith(f"{amount} in {tmp_path / 'some.tsv'}; its first lines"), done.err
    assert ("Half of them are those that both encoders disagree on most" in done.out) == is_part


def test_a_start_with_a_relative_path_is_found_from_any_folder(
    run: Path, tiny: Path, run_job: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "runs" / "run")
    manifest = tmp_path / "runs" / "run" / "run.yaml"
    manifest.write_text(manifest.read_text("utf-8").replace(str(tiny), "models/tiny"), encoding="utf-8")
    shutil.copytree(tiny, tmp_path / "models" / "tiny")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def printed(output: str) -> tuple[str, list[str]]:
        done = run_job("annotate", "../runs/run", "--output", output)
        assert done.status == 0, done.err
        *_, then, command = done.out.splitlines()
        return then, json.loads(shlex.split(command)[3])

    models = [str(tmp_path / "models" / "tiny"), "../runs/run/tiny/bi-encoder"]
    assert printed("found.tsv") == ("Then compare:", models)
    shutil.rmtree(tmp_path / "models")
    then, models = printed("lost.tsv")
    assert "the path from here to the folder models/tiny, which is as it was where the run was started:" in then
    assert models[0] == "models/tiny"


def test_what_cannot_be_annotated_is_said_in_a_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    several = shutil.copytree(run, tmp_path / "several")
    results = results_of(several)
    results["final"]["other"] = results["final"]["tiny"]
    (several / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for arguments, words in (
        ([str(several), "--output", str(tmp_path / "x.tsv")], "several models; name one of tiny, other (--model)"),
        ([str(run), "--output", "x.csv"], "output: 'x.csv' does not end in .tsv"),
        ([str(run)], "output: it is missing; name the file to write, which ends in .tsv"),
        ([str(tmp_path), "--output", str(tmp_path / "x.tsv")], "holds no run.yaml"),
        ([str(run), "--output", str(tmp_path / "x.tsv"), "--model", "x"], "the run has no model 'x', only tiny"),
        (["--output", "x.tsv"], "run is missing"),
        ([str(run), "--output", str(tmp_path / "file" / "x.tsv")], f"output: {tmp_path / 'file'} cannot be written to"),
    ):
        done = run_forked("annotate.py", arguments)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (tmp_path / "x.tsv").exists()
    with lock_output_file(tmp_path / "x.tsv"):
        done = annotate(run, tmp_path / "x.tsv")
    assert done.returncode == 2 and "another process writes" in done.stderr
