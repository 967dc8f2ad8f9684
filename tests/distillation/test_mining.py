"""Runs that have sentences: pairs are mined from them before the cycles."""

from __future__ import annotations

import json
import sys
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SAMPLE, brief_gold, sample_pairs, tiny_arguments
from datasets import Dataset
from forked import Forked, run_forked
from telling import columns

from te_trainer.config.commands import parse
from te_trainer.config.schema import ContrastiveDataConfig, DataConfig
from te_trainer.data import PoolManifest, SentenceManifest, build_pool, build_sentences
from te_trainer.distillation.mined_record import describe_candidates, describe_nothing
from te_trainer.distillation.mining import _candidates, mine_pool
from te_trainer.distillation.plan import make_plan
from te_trainer.distillation.preparation import _read_mining_sentences, read_step0_sentences
from te_trainer.errors import InputError
from te_trainer.hub.card import Upload, model_card
from te_trainer.labelling import cosines, score_pairs
from te_trainer.mining import neighbours
from te_trainer.models import BiEncoder, load_encoder
from te_trainer.report.mined_pairs import mining_table
from te_trainer.runs.finished import FinishedRun
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.store import RunStore

JOB = "trans_encoder.py"
ONE_CYCLE = (
    "--distillation.cycles",
    "1",
    "--bi_encoder.num_train_epochs",
    "1",
    "--cross_encoder.num_train_epochs",
    "1",
)
SENTENCES = list(dict.fromkeys(text for pair in sample_pairs(60) for text in pair))
MORE_CANDIDATES = ", a higher mining.candidates or more mining.sources"
NEARLY_THE_FIRST = f"{SENTENCES[0]} !!"  # its words are the same


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of documents of five sentences each."""
    path = tmp_path_factory.mktemp("sentences") / "texts.jsonl"
    texts = [*SENTENCES, NEARLY_THE_FIRST]
    rows = [json.dumps({"text": text, "page": number // 5}) for number, text in enumerate(texts)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def arguments(tiny: Path, output: Path, source: Path, *more: str) -> list[str]:
    mined = (
        "--data.pool",
        "[]",
        "--data.max_pairs",
        "null",
        "--data.sentences",
        str(source),
        "--data.column",
        "text",
        "--data.document",
        "page",
        "--mining.sources",
        "[neighbours, bm25, document, random]",
        "--mining.candidates",
        "10",
    )
    short = (*ONE_CYCLE, *brief_gold(source.parent))
    return tiny_arguments(tiny, output, *short, *mined, "--mining.pairs", "64", *more)


def pool_of(output: Path) -> list[tuple[str, str]]:
    pairs = Dataset.from_file(str(output / "pool" / "pairs.arrow"))
    return list(zip(pairs["sentence1"], pairs["sentence2"], strict=True))


def read(output: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / name).read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def output(tiny: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mined"
    done = run_forked(JOB, arguments(tiny, folder, source))
    assert done.returncode == 0, done.stderr
    assert f"sentences: {len(SENTENCES) + 1} distinct ones" in done.stderr
    assert "pool: 64 pairs" in done.stderr and "were found" not in done.stderr
    assert done.stderr.count("tiny: each of 1 cross-encoders: ") == 1
    return folder


def test_trainings_on_fewer_pairs_than_were_wanted_are_described_again(
    tiny: Path, source: Path, tmp_path: Path
) -> None:
    done = run_forked(JOB, arguments(tiny, tmp_path / "run", source, "--mining.pairs", "100000"))
    assert done.returncode == 0, done.stderr
    first, again = (line for line in done.stderr.splitlines() if "each of 1 bi-encoders: " in line)
    assert first != again
    assert done.stderr.index(first) < done.stderr.index("mine pairs: ") < done.stderr.index(again)


def test_the_pool_is_mined_from_the_sentences(output: Path, tiny: Path) -> None:
    pool = pool_of(output)
    assert len({frozenset(pair) for pair in pool}) == len(pool) == 64
    assert {text for pair in pool for text in pair} <= {*SENTENCES, NEARLY_THE_FIRST}
    assert {SENTENCES[0], NEARLY_THE_FIRST} not in [set(pair) for pair in pool]
    most = max(sum(text in pair for pair in pool) for text in SENTENCES)
    assert most <= 5
    record = read(output, "pool/mined.json")
    assert sum(record["pairs"].values()) == 64
    assert record["candidates"].keys() == {"neighbours", "bm25", "document", "random"}
    shown = [pair for band in record["examples"] for pair in band["pairs"]]
    assert {tuple(pair[:2]) for pair in shown} <= set(pool)
    # each example's score is the start's cosine
    scores = score_pairs(BiEncoder.from_pretrained(str(tiny), pooling="mean"), columns(shown))
    np.testing.assert_allclose([pair[2] for pair in shown], scores, atol=1e-3)


def test_high_scores_are_oftener_in_the_pool_than_among_all_pairs(output: Path, tiny: Path) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny), pooling="mean")
    every = list(combinations(SENTENCES, 2))
    mined, anyhow = (score_pairs(encoder, columns(pairs)) for pairs in (pool_of(output), every))
    assert mined.std() > 1.05 * anyhow.std()
    assert (mined > np.quantile(anyhow, 0.8)).mean() > 0.4


@pytest.mark.parametrize(
    ("more", "fix"),
    [
        (("--mining.per_sentence", "1"), f", a higher mining.per_sentence{MORE_CANDIDATES}"),
        (("--mining.per_sentence", "999"), MORE_CANDIDATES),
    ],
)
def test_fewer_pairs_than_were_wanted_are_told(
    more: tuple[str, str], fix: str, tiny: Path, source: Path, tmp_path: Path
) -> None:
    plan = make_plan(parse([*arguments(tiny, tmp_path, source), *more, "--mining.pairs", "100000"]), 1)
    layout = RunLayout(tmp_path)
    with _read_mining_sentences(plan, layout):
        pass
    store = RunStore(layout, plan.cycles, trains_start=False, precision=plan.precision)
    mine_pool(plan, store, RunProgress(enabled=False))
    pool = PoolManifest.load(layout.pool)[0]
    found = f"pool: {pool.num_rows:,} of 100,000 wanted pairs (mining.pairs) were found"
    assert f"{found}; more different sentences{fix} would give more" in pool.describe()
    # two sentences make one pair
    (line,) = describe_candidates(4, 1, 1, 2, {"near_duplicates": {"bm25": 0}, "in_pool": {}})
    assert line == "1 of 4 wanted pairs (mining.pairs) were found; more sentences would give more"
    # three sentences make three, whatever finds them
    lines = describe_candidates(4, 1, 1, 3, {"near_duplicates": {"bm25": 1}, "in_pool": {"random": 1}})
    assert lines == [
        "left out of the candidates: 1 as near-duplicates, 1 because data.pool holds them",
        "1 of 4 wanted pairs (mining.pairs) were found; more different sentences would give more",
    ]
    assert describe_candidates(1, 1, 1, 3, {"near_duplicates": {"bm25": 2}, "in_pool": {}}) == [
        "left out of the candidates: 2 as near-duplicates"
    ]


OPENING = " ".join(f"word{number}" for number in range(40))  # longer than what an encoder reads
LETTERS = [f"{OPENING} {sentence}" for sentence in SENTENCES[:6]]


@pytest.mark.parametrize("combine", ["mean", "rank"])
def test_texts_that_look_the_same_to_all_starts_are_near_duplicates(combine: str, tiny: Path, tmp_path: Path) -> None:
    texts = [*LETTERS, *SENTENCES[6:12]]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    keys = ("--data.pool", "[]", "--data.max_pairs", "null", "--data.sentences", str(tmp_path / "texts.txt"))
    keys += ("--mining.sources", "[random]", "--mining.candidates", "11", "--distillation.combine", combine)
    command = tiny_arguments(tiny, tmp_path / "run", *keys)
    command[1] = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny}, name: two, pooling: cls}}]"
    plan, layout = make_plan(parse(command), 1), RunLayout(tmp_path / "run")
    with _read_mining_sentences(plan, layout):
        pass
    mine_pool(plan, RunStore(layout, 1, trains_start=False, precision=plan.precision), RunProgress(enabled=False))
    pool = pool_of(tmp_path / "run")
    assert pool and not [pair for pair in pool if {*pair} <= {*LETTERS}]
    record = read(tmp_path / "run", "pool/mined.json")
    assert record["left_out"]["near_duplicates"]["random"] > 5
    assert record["candidates"]["random"] + record["left_out"]["near_duplicates"]["random"] <= 12 * 11 // 2
    assert sum(record["histogram"]["candidates"]) == record["candidates"]["random"]


def test_results_report_and_card_say_what_was_mined(output: Path, source: Path) -> None:
    results = read(output, "results.json")
    assert results["mining"]["sentences"] == len(SENTENCES) + 1
    assert "examples" not in results["mining"]
    left_out = results["mining"]["left_out"]
    # the first sentence and the one that is nearly the same
    assert left_out["near_duplicates"]["neighbours"] > 0
    assert set(left_out["in_pool"].values()) == {0}
    assert results["seconds"]["mine"] > 0
    manifest = yaml.safe_load((output / "run.yaml").read_text(encoding="utf-8"))
    assert manifest["pool"]["pairs"] == 64
    assert manifest["mining"]["sentences"] == len(SENTENCES) + 1
    drawn = f"64 pairs were mined from {len(SENTENCES) + 1:,} sentences"
    report = (output / "report.md").read_text(encoding="utf-8")
    assert drawn in report
    assert "| found by | near-duplicates | in data.pool | candidates | pairs drawn |" in report
    page = (output / "report.html").read_text(encoding="utf-8")
    assert drawn in page
    assert read(output, "pool/mined.json")["examples"][0]["pairs"][0][0] in unescape(page)
    card = model_card(FinishedRun.load(output), Upload("me/x", "tiny", ["bi-encoder"], False), None)
    assert f"64 sentence pairs (64 of them mined; {source.name.replace('_', chr(92) + '_')}) whose labels" in card
    assert "mining.pairs adds" not in card


@pytest.mark.slow
def test_a_kill_while_pairs_are_mined_changes_nothing(output: Path, tiny: Path, source: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = Forked(JOB, arguments(tiny, killed, source))
    process.kill_at(killed, ".scratch-mining")
    assert not (killed / "pool").exists()
    done = run_forked(JOB, arguments(tiny, killed, source))
    assert done.returncode == 0, done.stderr
    assert pool_of(killed) == pool_of(output)
    both = [read(folder, "results.json") for folder in (output, killed)]
    assert both[0]["cycles"] == both[1]["cycles"]
    assert not (killed / ".scratch-mining").exists()


def test_other_sentences_are_another_run(output: Path, tiny: Path, source: Path, tmp_path: Path) -> None:
    (output / "results.json").rename(tmp_path / "results.json")
    kept = source.read_text(encoding="utf-8")
    source.write_text(kept + '{"text": "one more", "page": 9}\n', encoding="utf-8")
    try:
        done = run_forked(JOB, arguments(tiny, output, source))
    finally:
        source.write_text(kept, encoding="utf-8")
        (tmp_path / "results.json").rename(output / "results.json")
    assert done.returncode == 2
    assert "texts.jsonl: the file has changed since the run in" in done.stderr


def test_a_pool_grows_by_pairs_of_its_own_sentences_that_the_bi_encoder_of_step_0_scores(
    tiny: Path, models: dict[str, str], tmp_path: Path
) -> None:
    plan = make_plan(parse(tiny_arguments(tiny, tmp_path, "--mining.pairs", "20")), 1)
    layout = RunLayout(tmp_path)
    with _read_mining_sentences(plan, layout):
        pass
    made = BiEncoder.from_pretrained(models["bert"], pooling="mean")
    made.save_pretrained(layout.encoder(0, "tiny", "bi-encoder"))
    store = RunStore(layout, plan.cycles, trains_start=True, precision=plan.precision)
    mine_pool(plan, store, RunProgress(enabled=False))
    pool = pool_of(tmp_path)
    given, mined = pool[:-20], pool[-20:]
    assert len(given) == 96
    texts = {text for pair in given for text in pair}
    assert {text for pair in mined for text in pair} <= texts
    assert not {frozenset(pair) for pair in given} & {frozenset(pair) for pair in mined}
    assert PoolManifest.load(layout.pool)[0].describe()[-1].endswith(", 96 drawn of 833, 20 mined ones added)")
    shown = [pair for band in read(tmp_path, "pool/mined.json")["examples"] for pair in band["pairs"]]
    np.testing.assert_allclose([pair[2] for pair in shown], score_pairs(made, columns(shown)), atol=1e-3)


def test_a_file_called_pool_is_not_the_pool_whose_sentences_are_mined(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pool").write_text("x", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plan = make_plan(parse(tiny_arguments(tiny, tmp_path / "run", "--mining.pairs", "20")), 1)
    for _ in range(2):  # begun, and continued
        with _read_mining_sentences(plan, RunLayout(tmp_path / "run")) as (sentences, *_):
            assert sentences > 100


def test_step_0_reads_the_sentences_and_those_of_the_given_pairs(tiny: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "given.tsv").write_text("sentence1\tsentence2\none\ttwo\n", encoding="utf-8")
    step0 = tmp_path / "step0.yaml"
    step0.write_text("contrastive: {pooling: mean, per_device_train_batch_size: 8}\n", encoding="utf-8")
    more = ("--data.pool", f"[{tmp_path / 'given.tsv'}]", "--distillation.step0", str(step0))
    config = parse([*arguments(tiny, tmp_path / "run", source), *more])
    plan, layout = make_plan(config, 1), RunLayout(tmp_path / "run")
    with (
        _read_mining_sentences(plan, layout) as (count, own_texts, _),
        read_step0_sentences(plan, layout.sentences, own_texts) as sentences,
    ):
        assert sentences is not None
        assert sentences.describe("step 0")[0] == f"step 0: the run's texts: {count + 2} read"
    mined_from, texts = (SentenceManifest.load(each)[1]["sentence1"][:] for each in (layout.mining, layout.sentences))
    assert texts == [*mined_from, "one", "two"]


@pytest.mark.slow
def test_sentences_alone_and_a_plain_model_become_both_encoders(tiny: Path, tmp_path: Path) -> None:
    """The recipe as it is, but for its model, its data, the number of cycles and steps, and what is kept."""
    (tmp_path / "sentences.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    root = tmp_path / "run"
    data = ("--data.sentences", str(tmp_path / "sentences.txt"), "--data.test", f"[{SAMPLE / 'test.tsv'}]")
    short = ("--distillation.cycles", "1", "--bi_encoder.max_steps", "2", "--cross_encoder.max_steps", "2")
    short += ("--distillation.selection", "last")
    recipe = ("--config", "recipes/from_sentences/large.yaml", "--models", f"[{{name: bert, bi_encoder: {tiny}}}]")
    done = run_forked(JOB, [*recipe, *data, *short, "--output_dir", str(root)])
    assert done.returncode == 0, done.stderr
    stages = [
        "step 0 bert: contrastive training",
        "mine pairs: gather candidates",
        "mine pairs: embed sentences with bert",
        *(f"cycle 1/1 bert: {stage}" for stage in ("label with bi-encoder", "train cross-encoder")),
        *(f"cycle 1/1 bert: {stage}" for stage in ("label with cross-encoder", "train bi-encoder")),
    ]
    begun = [done.stderr.index(f"{stage} | begins") for stage in stages]
    assert begun == sorted(begun)
    results = read(root, "results.json")
    assert results["mining"]["sentences"] == len(SENTENCES)
    assert sum(results["mining"]["pairs"].values()) == len(pool_of(root)) > len(SENTENCES)
    for kind in ("bi-encoder", "cross-encoder"):
        assert results["final"]["bert"][kind]["cycle"] == 1
        assert load_encoder(str(root / "bert" / kind)).kind == kind


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "data.pool is empty"),
        (("--mining.per_sentence", "2", "--data.pool", "x.tsv"), "mining: its keys say how pairs are mined"),
        (("--data.document", "page", "--data.pool", "x.tsv"), "data.document: belongs to data.sentences"),
        (("--data.sentences", "x.txt", "--data.max_pairs", "9"), "data.max_pairs: belongs to data.pool"),
        (("--data.sentences", "x.txt", "--mining.sources", "[document]"), "document alone needs data.document"),
        (("--data.sentences", "x.csv", "--data.document", "page", "--mining.sources", "[bm25]"), "lacks document"),
        (("--data.sentences", "x.txt", "--mining.sources", "[bm52]"), "mining.sources: .*'bm52'"),
        (("--data.sentences", "x.txt", "--mining.sources", "[]"), "mining.sources is empty"),
    ],
)
def test_keys_without_effect_are_refused(more: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(["--models", "x", *more])


@pytest.mark.parametrize(
    ("sentences", "words"),
    [
        ("alone\n", "data.sentences: there are fewer than three distinct sentences to pair"),
        (
            "rain\nsnow\nfog\n",
            "data.sentences: no pair can be mined of 3 sentences by bm25; give more texts",
        ),
        (
            "red light\nRed light!\nlight: red\n",
            "data.sentences: all 3 candidates are near-duplicates; give texts that differ in more of their words",
        ),
        (
            "\n".join(LETTERS),
            "the two texts of each of 15 candidates look the same to the start, which reads 32 tokens; give texts that",
        ),
    ],
)
def test_sentences_that_make_no_pair(tiny: Path, tmp_path: Path, sentences: str, words: str) -> None:
    (tmp_path / "few.txt").write_text(sentences, encoding="utf-8")
    none = ("--data.pool", "[]", "--data.max_pairs", "null", "--data.sentences", str(tmp_path / "few.txt"))
    none += ("--mining.sources", "[bm25]")
    done = run_forked(JOB, tiny_arguments(tiny, tmp_path / "run", *none))
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "run" / "pool").exists()


@pytest.mark.parametrize(
    ("near", "given", "words"),
    [
        (0, 3, "data.pool holds all 3 candidates; give other texts, a higher mining.candidates or more"),
        (1000, 3, "data.pool holds 3 candidates, and the other 1,000 are near-duplicates; give other texts, a"),
    ],
)
def test_why_no_candidate_is_left(near: int, given: int, words: str) -> None:
    assert describe_nothing(9, {"near_duplicates": {"bm25": near}, "in_pool": {"bm25": given}}).startswith(words)


def test_cosines() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    vectors[3] = 0
    rows = np.array(list(combinations(range(30), 2)))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(cosines(vectors, rows), (unit[rows[:, 0]] * unit[rows[:, 1]]).sum(1), atol=1e-6)


@pytest.mark.parametrize("package", ["bm25s", "faiss"])
def test_a_package_that_lacks_is_named_before_work_starts(
    package: str, tiny: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 10)
    config = parse(arguments(tiny, tmp_path / "run", source))
    with (
        pytest.raises(InputError, match=rf"mining\.sources: .* the package {package}; pip install"),
        _read_mining_sentences(make_plan(config, 1), RunLayout(tmp_path / "run")),
    ):
        pass
    assert not (tmp_path / "run" / "mining").exists()


def test_given_pairs_and_near_duplicates_are_no_candidates(tiny: Path, tmp_path: Path) -> None:
    layout, texts = RunLayout(tmp_path / "run"), ["red light", "no sound", "Red light!", "box is hot", "late parcel"]
    (tmp_path / "given.tsv").write_text("sentence1\tsentence2\nno sound\tred light\nno sound\tlate parcel\n")
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    build_pool(DataConfig(pool=[str(tmp_path / "given.tsv")]), layout.given_pairs)
    build_sentences(ContrastiveDataConfig(sentences=[str(tmp_path / "texts.txt")]), layout.mining)
    plan = make_plan(
        parse(["--models", str(tiny), "--data.sentences", "x.txt", "--mining.sources", "[neighbours, bm25, document]"]),
        1,
    )
    sentences, every = SentenceManifest.load(layout.mining)[1], np.array(list(combinations(range(5), 2)))
    found, left_out = _candidates(plan, layout, sentences, np.arange(5), every, progress=lambda done: None)
    # a source that gives nothing is named, but for documents that nobody has given
    counts = {"near_duplicates": {"neighbours": 1, "bm25": 0}, "in_pool": {"neighbours": 2, "bm25": 0}}
    assert left_out == counts
    table = mining_table({"mining": {"left_out": counts, "candidates": {"neighbours": 7}, "pairs": {"neighbours": 7}}})
    assert table is not None and [row[1:] for row in table.rows] == [["1", "2", "7", "7"], ["0", "0", "0", "0"]]
    left = {tuple(pair) for pair in every.tolist()} - {(0, 2), (0, 1), (1, 4)}
    assert {tuple(pair) for pair in found.rows.tolist()} == left
    assert len(found.source) == len(left)


def test_sentences_that_look_for_no_partner_are_no_candidates(tiny: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"sentence {number}", "page": number // 20}) for number in range(60)]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    plan = make_plan(parse([*arguments(tiny, tmp_path / "run", tmp_path / "texts.jsonl"), "--mining.pairs", "4"]), 1)
    with _read_mining_sentences(plan, layout := RunLayout(tmp_path / "run")):
        pass
    sentences = SentenceManifest.load(layout.mining)[1]
    anchors = np.array([5, 19, 20])
    none, done = np.empty((0, 2), np.int64), list[float]()
    found = _candidates(plan, layout, sentences, anchors, none, done.append)[0].rows
    assert done == [1 / 3, 2 / 3, 1]  # of BM25's searches
    assert np.isin(found, anchors).any(axis=1).all()
    assert {(4, 5), (5, 6), (18, 19), (20, 21)} <= {tuple(pair) for pair in found.tolist()}
