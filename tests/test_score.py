"""Inference for people: whose scores they are, that no row is lost, what is refused, and that a kill leaves nothing."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentence_transformers
import torch
from conftest import MINILM, ROOT, Run, sample_pairs
from forked import Forked, run_forked, run_ranks
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search
from sklearn.calibration import _SigmoidCalibration
from torch import nn
from transformers import set_seed

from te_trainer import search
from te_trainer.config.commands import parse, parse_score
from te_trainer.data import PoolManifest, build_pool, outputs
from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, check_encoder, load_encoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.model_names import locate

RECIPE = ROOT / "recipes" / "score.py"


@pytest.fixture(scope="module")
def bi(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bi-encoder that cuts many sentences, and has a prompt, so that both must be taken from the checkpoint."""
    folder = tmp_path_factory.mktemp("trained") / "bi-encoder"
    BiEncoder.from_pretrained(models["bert"], pooling="mean", max_length=9, prompt="router ").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def cross(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trained") / "cross-encoder"
    set_seed(0)
    encoder = CrossEncoder.from_pretrained(models["bert"], max_length=14)
    head = encoder.model.classifier
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.mul_(12)
    encoder.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str]]:
    """Pairs, some of them twice, one that no TSV can hold as it is, and in their midst rows that lack a sentence."""
    pairs = sample_pairs(60)
    odd = [("my router\tblinks\nred", "a red light"), ("", ""), ("no sound", "")]
    return [*pairs[:40], *odd, *pairs[10:60], pairs[0], pairs[0]]


@pytest.fixture(scope="module")
def pairs_file(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("number", "question", "sentence2")])
        csv.writer(file).writerows((number, *pair) for number, pair in enumerate(rows))
    return path


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Distinct sentences that the tiny models tell apart."""
    return list(dict.fromkeys(text for pair in sample_pairs(80) for text in pair))[:100]


@pytest.fixture(scope="module")
def sentences_file(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "sentences.txt"
    path.write_text("\n".join([*texts, texts[3], ""]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_job: Run) -> Run:
    """The job in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return partial(run_job, "score", "--precision", "float32")


def read_tsv(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]


def neighbours(path: Path) -> dict[str, list[tuple[int, str, float]]]:
    found: dict[str, list[tuple[int, str, float]]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["query"], []).append((row["rank"], row["sentence"], row["score"]))
    return found


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_pairs_get_the_scores_of_sentence_transformers(
    kind: str, bi: str, cross: str, rows: list[tuple[str, str]], pairs_file: Path, run: Run, tmp_path: Path
) -> None:
    model = bi if kind == "bi-encoder" else cross
    arguments = ["--model", model, "--data.pairs", pairs_file, "--data.columns", "{sentence1: question}"]
    status, _, said = run(*arguments, "--output", "new/scores.parquet")
    assert status == 0, said
    assert f"model: {model}: {kind}" in said and "2 lack a sentence" in said and "done" in said
    table = pq.read_table(tmp_path / "new" / "scores.parquet").to_pydict()
    assert list(zip(table["sentence1"], table["sentence2"], strict=True)) == rows
    whole = [number for number, pair in enumerate(rows) if all(pair)]
    assert [number for number, value in enumerate(table["prediction"]) if value is not None] == whole
    kept = [rows[number] for number in whole]
    if kind == "bi-encoder":
        theirs = SentenceTransformer(model, device="cpu")
        one, two = (theirs.encode(list(side), convert_to_tensor=True) for side in zip(*kept, strict=True))
        expected = sentence_transformers.util.pairwise_cos_sim(one, two).numpy()
    else:
        expected = sentence_transformers.CrossEncoder(model, device="cpu").predict(kept)
    ours = [table["prediction"][number] for number in whole]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert np.std(ours) > 0.05

    assert run(*arguments, "--output", "scores.tsv")[0] == 0
    header, *written = read_tsv(tmp_path / "scores.tsv")
    assert header == ["sentence1", "sentence2", "prediction", "number"]
    assert written[40] == ["my router blinks red", "a red light", written[40][2], "40"]
    assert written[41] == ["", "", "", "41"]
    assert [np.float32(row[2]) for row in written if row[2]] == [np.float32(value) for value in ours]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "scores.parquet", "scores.tsv"]


def test_encoders_compute_with_the_attention_that_is_named(
    bi: str, cross: str, sentences_file: Path, run: Run, tmp_path: Path, watched: Callable[[str], list[Any]]
) -> None:
    calls, found = watched("watched_score"), []
    arguments = ["--model", bi, "--rerank", cross, "--data.sentences", sentences_file, "--top_k", 3]
    for more in ([], ["--attn_implementation", "watched_score"]):
        output = tmp_path / f"{len(more)}.parquet"
        status, _, said = run(*arguments, "--output", output, *more)
        assert status == 0, said
        assert bool(calls) == bool(more)
        found.append(pq.read_table(output).to_pydict())
    assert found[1]["sentence"] == found[0]["sentence"]
    np.testing.assert_allclose(found[1]["score"], found[0]["score"], atol=1e-5)


def test_a_runs_folder_stands_for_its_encoder_and_csv_keeps_ids(
    bi: str, cross: str, rows: list[tuple[str, str]], pairs_file: Path, run: Run, tmp_path: Path
) -> None:
    for kind, folder in {"bi-encoder": bi, "cross-encoder": cross}.items():
        shutil.copytree(folder, tmp_path / "runs" / "bert" / kind)
    (tmp_path / "runs" / "run.yaml").touch()
    kept = {"bi-encoder": {"as_good_as_start": True}, "cross-encoder": {"as_good_as_start": True}}
    (tmp_path / "runs" / "results.json").write_text(json.dumps({"cycles": [], "final": {"bert": kept}}))
    arguments = ["--data.pairs", pairs_file, "--data.columns", "{sentence1: question}"]
    status, _, said = run("--model", "runs", *arguments, "--output", "of_run.csv")
    assert status == 0, said
    assert "model: of the run in runs, bert/cross-encoder is taken: it is as good as the start" in said
    assert run("--model", cross, *arguments, "--output", "of_encoder.csv")[0] == 0
    assert (tmp_path / "of_run.csv").read_bytes() == (tmp_path / "of_encoder.csv").read_bytes()
    with (tmp_path / "of_run.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["number"] for row in written] == [str(number) for number in range(len(rows))]
    assert [(row["sentence1"], row["sentence2"]) for row in written] == rows
    assert run("--model", cross, *arguments, "--data.keep", "false", "--output", "plain.csv")[0] == 0
    assert (tmp_path / "plain.csv").read_text().split("\n")[0] == "sentence1,sentence2,prediction"


def test_what_is_said_goes_before_the_checkpoint(
    bi: str, rows: list[tuple[str, str]], pairs_file: Path, run: Run, tmp_path: Path
) -> None:
    arguments = ["--model", bi, "--data.pairs", pairs_file, "--data.columns", "{sentence1: question}"]
    status, _, said = run(
        *arguments, "--pooling", "cls", "--max_length", "5", "--prompt", "", "--output", tmp_path / "scores.parquet"
    )
    assert status == 0 and "cls pooling, 5 tokens of a sentence\n" in said
    encoder = BiEncoder.from_pretrained(bi, pooling="cls", max_length=5, prompt="")
    encoder.save_pretrained(tmp_path / "other")
    theirs = SentenceTransformer(str(tmp_path / "other"), device="cpu")
    one, two = (theirs.encode(list(side), convert_to_tensor=True) for side in zip(*rows[:40], strict=True))
    expected = sentence_transformers.util.pairwise_cos_sim(one, two).numpy()
    ours = pq.read_table(tmp_path / "scores.parquet")["prediction"].to_numpy()[:40]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_lengths_are_those_of_sentence_transformers(bi: str, cross: str, tiny: Path, tmp_path: Path) -> None:
    for name in (bi, str(tiny), MINILM):
        assert resolve_checkpoint(name).max_length == SentenceTransformer(locate(name), device="cpu").max_seq_length
    assert (
        resolve_checkpoint(cross).max_length
        == sentence_transformers.CrossEncoder(cross, device="cpu").max_seq_length
        == 14
    )
    assert load_encoder(cross).max_length == 14


# ---------------------------------------------------------------- probabilities


def labels_file(path: Path, rows: list[tuple[str, str]], labels: list[float], name: str = "score") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(name, "sentence1", "sentence2")])
        csv.writer(file).writerows((label, *pair) for label, pair in zip(labels, rows, strict=True))
    return path


def test_labelled_pairs_turn_scores_into_probabilities(
    bi: str, rows: list[tuple[str, str]], pairs_file: Path, run: Run, tmp_path: Path
) -> None:
    columns = ["--data.columns", "{sentence1: question, score: same}"]
    arguments = ["--model", bi, "--data.pairs", pairs_file, *columns]
    assert run(*arguments, "--output", "plain.parquet")[0] == 0
    scores = pq.read_table(tmp_path / "plain.parquet")["prediction"].to_pylist()
    known = scores[:40]
    # half of the pairs are the same, those that score high, except every fifth
    same = [(score > np.median(known)) != (number % 5 == 0) for number, score in enumerate(known)]
    for labels, more in ((map(float, same), []), ((5.0 if each else 2.5 for each in same), ["--same_from", "4"])):
        labels_file(tmp_path / "labels.csv", rows[:40], list(labels), name="score" if more else "same")
        status, _, said = run(
            *arguments, "--probabilities", "labels.csv", *more, "--output", "scores.parquet", "--overwrite", "true"
        )
        assert status == 0, said
        assert re.search(
            rf"probabilities: labels\.csv: 40 pairs, {sum(same)} of them the same; expected calibration error 0\.\d+ .*"
            r"probability 0\.5 is the score 0\.\d+, which \d+ reach, with precision 0\.\d+ and recall 0\.\d+",
            said,
        )
        table = pq.read_table(tmp_path / "scores.parquet").to_pydict()
        assert list(table) == ["sentence1", "sentence2", "prediction", "probability", "number"]
        assert table["prediction"] == scores
        expected = _SigmoidCalibration().fit(np.array(known), same)
        for score, probability in zip(scores, table["probability"], strict=True):
            assert (score is None) == (probability is None)
            if score is not None:
                assert probability == pytest.approx(expected.predict(np.array([score]))[0], abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "plain.parquet", "scores.parquet"]


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        ([0, 1, 2, 5] * 5, [], "the scores in labels.csv are not 0 and 1 alone; say from which score on"),
        ([0, 1, 2, 5] * 5, ["--same_from", "6"], "of 20 pairs in labels.csv, 0 are the same; at least two must be"),
        ([1] * 19 + [0], [], "of 20 pairs in labels.csv, 19 are the same"),
        ("falling", [], "that are the same score no higher than the others"),
        (
            [1, 0] * 10,
            ["--same_from", "0.5", "--data.sentences", "s.txt", "--data.pairs", "null"],
            "belongs to data.pairs",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    labels: Any,
    more: list[str],
    message: str,
    bi: str,
    rows: list[tuple[str, str]],
    pairs_file: Path,
    run: Run,
    tmp_path: Path,
) -> None:
    if labels == "falling":
        columns = {"sentence1": [one for one, _ in rows[:20]], "sentence2": [two for _, two in rows[:20]]}
        scores = score_pairs(load_encoder(bi), columns)
        labels = [int(score < np.median(scores)) for score in scores]
    labels_file(tmp_path / "labels.csv", rows[:20], labels)
    arguments = ["--model", bi, "--data.pairs", pairs_file, "--data.columns", "{sentence1: question}"]
    status, _, said = run(*arguments, "--probabilities", "labels.csv", "--output", "scores.csv", *more)
    assert status == 2 and "error: probabilities: " in said and message in said.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv"]


# ---------------------------------------------------------------- nearest sentences


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were many more sentences than fit into one product, and more rows than into one written block."""
    monkeypatch.setattr(search, "BLOCK_CPU", (7, 13))
    monkeypatch.setattr(search, "BLOCK", (7, 13))
    monkeypatch.setattr(outputs, "BLOCK_ROWS", 24)


def expected_neighbours(model: str, queries: list[str], texts: list[str], count: int) -> list[list[dict[str, Any]]]:
    theirs = SentenceTransformer(model, device="cpu")
    encode = [theirs.encode(side, convert_to_tensor=True) for side in (queries, texts)]
    return semantic_search(*encode, top_k=count)


def check_neighbours(
    path: Path, queries: list[str], texts: list[str], expected: list[list[dict[str, Any]]], count: int
) -> None:
    found = neighbours(path)
    assert list(found) == queries
    for query, hits in zip(queries, expected, strict=True):
        ours = found[query]
        assert [rank for rank, _, _ in ours] == list(range(1, count + 1))
        np.testing.assert_allclose([score for _, _, score in ours], [hit["score"] for hit in hits], rtol=0, atol=1e-5)
        # of sentences whose cosines are equal, either may come first
        scores = {texts[hit["corpus_id"]]: hit["score"] for hit in hits}
        last = hits[-1]["score"]
        assert all(score == pytest.approx(scores.get(text, last), abs=1e-5) for _, text, score in ours)


def test_each_sentence_finds_its_nearest_others(
    bi: str, texts: list[str], sentences_file: Path, run: Run, tmp_path: Path, small_blocks: None
) -> None:
    arguments = ["--model", bi, "--data.sentences", sentences_file]
    status, _, said = run(*arguments, "--top_k", "5", "--output", tmp_path / "nearest.parquet")
    assert status == 0, said
    assert "100 distinct ones (1 duplicates dropped)" in said
    hits = expected_neighbours(bi, texts, texts, 100)
    others = [[hit for hit in found if hit["corpus_id"] != number][:5] for number, found in enumerate(hits)]
    check_neighbours(tmp_path / "nearest.parquet", texts, texts, others, 5)
    assert all(
        query != text for query, found in neighbours(tmp_path / "nearest.parquet").items() for _, text, _ in found
    )


def test_queries_find_their_nearest(
    bi: str, texts: list[str], sentences_file: Path, run: Run, tmp_path: Path, small_blocks: None
) -> None:
    queries = [*(one for one, _ in sample_pairs(120)[100:]), texts[0]]
    with (tmp_path / "queries.tsv").open("w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in ["text", *queries])
    status, _, said = run(
        *("--model", bi, "--data.sentences", sentences_file, "--data.queries", "queries.tsv"),
        *("--data.column", "text", "--top_k", "20", "--output", tmp_path / "nearest.parquet"),
    )
    assert status == 0, said
    queries = list(dict.fromkeys(queries))
    assert f"queries: queries.tsv: 21 read\nqueries: {len(queries)} distinct ones" in said
    assert "sentences: queries.tsv" not in said and "sentences: 100 distinct ones" in said
    expected = expected_neighbours(bi, queries, texts, 20)
    check_neighbours(tmp_path / "nearest.parquet", queries, texts, expected, 20)
    assert neighbours(tmp_path / "nearest.parquet")[texts[0]][0][2] == pytest.approx(1, abs=1e-5)


def test_what_was_found_is_a_pool(bi: str, texts: list[str], run: Run, tmp_path: Path) -> None:
    sentences = [*texts, 'the "red" light', '"my router"', "it's 5|6 || 7, or \u2028 so"]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences))
    nearest = ["--model", bi, "--data.sentences", "faq.jsonl", "--data.column", "text", "--top_k", "3"]
    for name in ("nearest.tsv", "nearest.parquet"):
        assert run(*nearest, "--output", name)[0] == 0
    columns = ["--data.columns", "{sentence1: query, sentence2: sentence}"]
    config = parse(["--models", bi, "--data.pool", "nearest.tsv", *columns])
    found = build_pool(config.data, tmp_path / "pool")
    assert (found.num_rows, found.duplicates) == (3 * len(sentences), 0)
    pool = PoolManifest.load(tmp_path / "pool")[1]
    table = pq.read_table(tmp_path / "nearest.parquet")
    for name, column in config.data.columns.items():
        assert pool[name][:] == table[column].to_pylist()


def test_a_cross_encoder_orders_what_was_found(
    bi: str, cross: str, texts: list[str], sentences_file: Path, run: Run, tmp_path: Path
) -> None:
    arguments = ["--model", bi, "--data.sentences", sentences_file, "--top_k", "4"]
    assert run(*arguments, "--output", tmp_path / "nearest.parquet")[0] == 0
    status, _, said = run(*arguments, "--rerank", cross, "--output", tmp_path / "reranked.parquet")
    assert status == 0, said
    theirs = sentence_transformers.CrossEncoder(cross, device="cpu")
    before, after = neighbours(tmp_path / "nearest.parquet"), neighbours(tmp_path / "reranked.parquet")
    assert list(after) == list(before) == texts
    for query, found in after.items():
        assert {text for _, text, _ in found} == {text for _, text, _ in before[query]}
        scores = [score for _, _, score in found]
        assert scores == sorted(scores, reverse=True)
        expected = theirs.predict([(query, text) for _, text, _ in found])
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
    assert any([text for _, text, _ in after[query]] != [text for _, text, _ in before[query]] for query in texts)


def test_more_than_there_are_cannot_be_found(bi: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "sentences.txt").write_text("no sound\nred light\nmy router blinks\n", encoding="utf-8")
    status, _, said = run("--model", bi, "--data.sentences", "sentences.txt", "--output", "nearest.tsv")
    assert status == 0 and "top_k: 2, because there are no more" in said
    header, *written = read_tsv(tmp_path / "nearest.tsv")
    assert header == ["query", "rank", "sentence", "score"]
    assert [row[:2] for row in written[:3]] == [["no sound", "1"], ["no sound", "2"], ["red light", "1"]]


# ---------------------------------------------------------------- several ranks, kills


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("what", ["pairs", "sentences"])
def test_two_ranks_write_what_one_writes(
    what: str, bi: str, pairs_file: Path, sentences_file: Path, run: Run, tmp_path: Path
) -> None:
    arguments = ["--model", bi, "--precision", "float32"]
    if what == "pairs":
        arguments += ["--data.pairs", str(pairs_file), "--data.columns", "{sentence1: question}"]
    else:
        arguments += ["--data.sentences", str(sentences_file), "--top_k", "3"]
    assert run(*arguments, "--output", tmp_path / "one.parquet")[0] == 0
    finished = run_ranks(RECIPE, [*arguments, "--output", str(tmp_path / "two.parquet")])
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert finished.stderr.count("model: ") == 1
    one, two = (pq.read_table(tmp_path / f"{name}.parquet").to_pydict() for name in ("one", "two"))
    numbers = "prediction" if what == "pairs" else "score"
    one_scores, two_scores = (np.array(table.pop(numbers), dtype=np.float64) for table in (one, two))
    np.testing.assert_allclose(two_scores, one_scores, rtol=0, atol=1e-6)
    close = np.flatnonzero(np.diff(one_scores, prepend=np.inf) > -1e-6)
    if what == "sentences":
        assert one.pop("rank") == two.pop("rank")
        # of two that are as near, either may come first
        assert sum(a != b for a, b in zip(one.pop("sentence"), two.pop("sentence"), strict=True)) <= 2 * len(close)
    assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "two.parquet"]


@pytest.mark.slow
def test_a_kill_leaves_no_output(bi: str, tmp_path: Path) -> None:
    pairs = sample_pairs(100)
    lines = [f"{one}\t{two}\n" for one, two in pairs] * 500
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\n" + "".join(lines), encoding="utf-8")
    source, output = (str(tmp_path / name) for name in ("pairs.tsv", "scores.tsv"))
    command = ["--model", bi, "--data.pairs", source, "--output", output]
    # the second process works among what the first one left, and the third among what both left
    for moment in (".partial-scores.tsv.scratch/vectors.f32", ".partial-scores.tsv"):
        Forked("score.py", command).kill_at(tmp_path, moment)
        assert not (tmp_path / "scores.tsv").exists()
    assert run_forked("score.py", command).returncode == 0
    assert len(read_tsv(tmp_path / "scores.tsv")) == len(lines) + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.tsv", "scores.tsv"]


@pytest.mark.slow
def test_one_process_writes_an_output_and_an_interrupted_one_leaves_nothing(bi: str, run: Run, tmp_path: Path) -> None:
    lines = [f"{one}\t{two}\n" for one, two in sample_pairs(100)] * 500
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\n" + "".join(lines), encoding="utf-8")
    (tmp_path / "few.tsv").write_text("sentence1\tsentence2\n" + lines[0], encoding="utf-8")
    source, output = (str(tmp_path / name) for name in ("pairs.tsv", "scores.tsv"))
    process = Forked("score.py", ["--model", bi, "--data.pairs", source, "--output", output])
    while not (tmp_path / ".partial-scores.tsv.scratch" / "vectors.f32").exists():
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.002)
    process.send(signal.SIGSTOP)
    before = sorted(tmp_path.rglob("*"))
    again = ["--model", bi, "--data.pairs", "few.tsv", "--output", "scores.tsv"]
    sentence = "error: output: another process writes scores.tsv; wait for it, or name another file\n"
    assert run(*again) == (2, "", sentence)
    assert sorted(tmp_path.rglob("*")) == before
    assert run(*again[:-1], "others.tsv")[0] == 0
    process.send(signal.SIGINT)
    process.send(signal.SIGCONT)
    assert process.wait() == 130, process.said()
    said = process.said()
    assert said.endswith("error: interrupted; the same command begins from the start\n") and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.tsv", "others.tsv", "pairs.tsv"]
    assert run(*again)[0] == 0


def test_scores_that_are_all_the_same_are_said(tiny: Path, pairs_file: Path, run: Run, tmp_path: Path) -> None:
    """The first token of a BERT that reads from left to right has seen no other."""
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    content = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"is_decoder": True}
    (model / "config.json").write_text(json.dumps(content), encoding="utf-8")
    arguments = ("--data.pairs", pairs_file, "--data.columns", "{sentence1: question}")
    status, _, said = run("--model", model, "--pooling", "cls", *arguments, "--output", "x.jsonl")
    assert status == 0, said
    assert "warning: all 93 pairs have the same score (1.000); if they differ, the model tells no texts apart" in said
    status, _, said = run("--model", tiny, *arguments, "--output", "y.jsonl")
    assert status == 0 and "have the same score" not in said


def test_endings_may_be_in_capitals(bi: str, pairs_file: Path, run: Run, tmp_path: Path) -> None:
    for output in ("SCORES.PARQUET", "SCORES.TSV"):
        arguments = ["--model", bi, "--data.pairs", pairs_file, "--data.columns", "{sentence1: question}"]
        assert run(*arguments, "--output", output)[0] == 0
    assert pq.read_table(tmp_path / "SCORES.PARQUET").num_rows == len(read_tsv(tmp_path / "SCORES.TSV")) - 1


def test_what_is_cut_is_said(run: Run, bi: str, cross: str, pairs_file: Path, sentences_file: Path) -> None:
    columns = ("--data.columns.sentence1", "question")
    for model, texts in ((bi, "distinct sentences"), (cross, "pairs")):
        arguments = ("--model", model, "--data.pairs", pairs_file, *columns, "--output", "scores.tsv")
        status, _, err = run(*arguments, "--overwrite", "true")
        assert status == 0, err
        length = load_encoder(model).max_length
        assert re.search(rf"pairs: \d+ of \d+ {texts} \([\d.]+ %\) have more than {length} tokens and are cut", err)
        status, _, err = run(*arguments, "--overwrite", "true", "--max_length", "100")
        assert (status, " are cut" in err) == (0, False)
    arguments = ("--model", bi, "--data.sentences", sentences_file, "--rerank", cross, "--output", "nearest.tsv")
    status, _, err = run(*arguments, "--top_k", "2")
    assert status == 0, err
    assert re.search(r"sentences: \d+ of 100 distinct sentences \([\d.]+ %\) have more than 9 tokens and are cut", err)
    assert re.search(r"rerank: \d+ of 200 pairs \([\d.]+ %\) have more than 14 tokens and are cut", err)


# ---------------------------------------------------------------- what is refused

FILES = {
    "split.tsv": "sentence1\tsentence2\tsplit\na\tb\ttrain\n\n",
    "pairs.tsv": "sentence1\tsentence2\nno sound\tsilent\n",
    "blank.txt": "\n\n",
    "single.txt": "no sound\nno sound\n",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files in the working folder; gives all paths in it."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "is.tsv").mkdir()
    return sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "key", "meaning"),
    [
        (["--modle", "x"], "'modle'", "did you mean 'model'"),
        (["--data.pair", "x"], "'data.pair'", "did you mean 'data.pairs'"),
        (["--batch_size", "3"], "'batch_size'", "did you mean 'batch_tokens'"),
        (["--model", ""], "model", "empty"),
        (["--output", "scores.xls"], "output", r"does not end in \.tsv, \.csv, \.jsonl or \.parquet"),
        (["--output", "is.tsv"], "output", "is a folder"),
        (["--output", "pairs.tsv"], "output", "is there already.*--overwrite true"),
        (["--data.sentences", "pairs.tsv"], "data", "either data.pairs or data.sentences"),
        (["--data.pairs", "null"], "data", "either data.pairs or data.sentences"),
        (["--top_k", "3"], "top_k", "data.sentences"),
        (["--data.queries", "pairs.tsv"], "data.queries", "data.sentences"),
        (["--data.pairs", "null", "--data.sentences", "x.tsv", "--data.keep", "false"], "data.keep", "data.pairs"),
        (["--data.columns", "{scor: x}"], "data.columns", "sentence1, sentence2, score"),
        (["--batch_tokens", "0"], "batch_tokens", "greater than 0"),
        (["--data.pairs", "null", "--data.sentences", "pairs.tsv", "--top_k", "0"], "top_k", "greater than 0"),
    ],
)
def test_a_wrong_command_line_is_refused_by_its_key(
    arguments: list[str], key: str, meaning: str, files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{key}.*{meaning}"):
        parse_score(["--model", "m", "--data.pairs", "pairs.tsv", "--output", "new/scores.tsv", *arguments])
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize(
    ("arguments", "key", "meaning"),
    [
        (["--data.pairs", "pairs.tsv", "--output", "pairs.tsv/new/scores.tsv"], "output", "cannot be written to"),
        (["--data.pairs", "gone.tsv"], "gone.tsv", "does not exist"),
        (["--data.pairs", "blank.txt"], "data.pairs", "no pair of sentences"),
        (["--data.pairs", "split.tsv", "--data.split", "x"], "data.pairs", "no pair of sentences in .*, split 'x'"),
        (["--data.sentences", "pairs.tsv", "--model", "CROSS"], "model", "is a cross-encoder"),
        (["--data.sentences", "pairs.tsv", "--rerank", "BI"], "rerank", "is a bi-encoder"),
        (["--data.sentences", "single.txt"], "data.sentences", "one distinct sentence"),
        (["--data.pairs", "pairs.tsv", "--attn_implementation", "spda"], "attn_implementation", "'spda' cannot be"),
        (["--data.sentences", "pairs.tsv", "--data.queries", "blank.txt"], "data.queries", "no sentence in"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence_and_leaves_nothing(
    arguments: list[str], key: str, meaning: str, bi: str, cross: str, run: Run, files: list[Path], tmp_path: Path
) -> None:
    names = {"CROSS": cross, "BI": bi}
    arguments = [names.get(argument, argument) for argument in arguments]
    status, out, err = run("--model", bi, "--output", "new/scores.tsv", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert re.match(f"error: {key}: .*{meaning}", err)
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("key", ["pooling", "prompt"])
def test_a_cross_encoder_has_no_pooling_and_no_prompt(key: str, cross: str) -> None:
    with pytest.raises(InputError, match=f"^{key}: .*is a cross-encoder"):
        check_encoder(cross, **{key: "cls"})  # type: ignore[arg-type]


def test_an_output_is_replaced_where_that_is_said(bi: str, pairs_file: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "scores.tsv").write_text("mine\n", encoding="utf-8")
    arguments = ["--model", bi, "--data.pairs", pairs_file, "--data.columns", "{sentence1: question}"]
    assert run(*arguments, "--output", "scores.tsv")[0] == 2
    assert read_tsv(tmp_path / "scores.tsv") == [["mine"]]
    assert run(*arguments, "--output", "scores.tsv", "--overwrite", "true")[0] == 0
    assert len(read_tsv(tmp_path / "scores.tsv")) > 90
