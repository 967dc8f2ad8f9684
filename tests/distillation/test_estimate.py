"""How long a run is said to take."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import sample_pairs, tiny_arguments
from datasets import Dataset

from te_trainer.config.commands import parse
from te_trainer.config.schema import ContrastiveDataConfig
from te_trainer.data import GoldSet, GoldSets, PoolManifest, SentenceManifest, build_sentences
from te_trainer.distillation import costs
from te_trainer.distillation.costs import describe_time, describe_trainings, estimate_seconds, spread
from te_trainer.distillation.plan import make_plan
from te_trainer.distillation.work import cycles_work, mining_work, step0_work, total_work
from te_trainer.metrics import spearman
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore


@pytest.mark.parametrize(("pairs", "timed"), [(40, 40), (600, 256)])
def test_the_time_of_some_pairs_is_taken_for_all_passes(
    pairs: int, timed: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--cross_encoder.both_orders", "true", "--bi_encoder.num_train_epochs", "3")  # the last of a key counts
    arguments = tiny_arguments(tiny, tmp_path, *more)
    arguments[1] = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny}, name: two}}]"
    plan = make_plan(parse(arguments), 1)
    layout = RunLayout(tmp_path)
    store = RunStore(layout, plan.cycles, trains_start=False, precision=plan.precision)
    PoolManifest().write(layout.pool, sample_pairs(pairs), lambda rows: rows)
    pool = PoolManifest.load(layout.pool)[1]
    gold = GoldSet("gold", ["a"] * 10, ["b"] * 10, np.zeros(10))
    scorer = Scorer(GoldSets(gold, (gold,)), spearman, None, layout.gold_scratch)
    # a clock by which whatever is timed takes two seconds
    monkeypatch.setattr(costs, "time", SimpleNamespace(monotonic=count(step=2).__next__))
    # a cycle labels twice, and trains on both orders of each pair once and on each pair three times; a pass of a
    # training costs four of a labelling
    passes = 2 * (2 + 4 * 2 * 1 + 4 * 3)
    # the start and two encoders a cycle score both sets
    scored = (1 + 2 * 2) * 20
    expected = 2 * (2 / timed) * (pairs * passes + scored)
    assert estimate_seconds(plan, store, pool, scorer) == pytest.approx(expected)
    assert not layout.gold_scratch.exists()


@pytest.mark.parametrize(("is_mined", "key"), [(True, "mining.pairs"), (False, "data.max_pairs")])
def test_of_a_long_run_the_key_is_named_that_shortens_it(is_mined: bool, key: str) -> None:
    assert describe_time(600, is_mined) == "The run will take about 10 min 00 s on this machine"
    long = f"; one with a smaller {key}, in another output_dir, is shorter"
    assert describe_time(30 * 3600, is_mined) == f"The run will take about 30 h 00 min on this machine{long}"


def test_step_0_and_mining_are_in_the_time(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step0 = tmp_path / "step0.yaml"
    step0.write_text("contrastive: {mlp_head: false, num_train_epochs: 3}\n", encoding="utf-8")
    arguments = ["--data.sentences", "texts.txt", "--mining.pairs", "100", "--mining.sources", "[bm25, random]"]
    arguments += ["--distillation.step0", str(step0), "--cross_encoder.both_orders", "false"]
    arguments += ["--cross_encoder.num_train_epochs", "1", "--bi_encoder.num_train_epochs", "1"]
    models = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny}, name: two}}]"
    plan = make_plan(parse(["--models", models, "--output_dir", str(tmp_path), *arguments]), 1)
    layout = RunLayout(tmp_path)
    for folder in (layout.mining, layout.sentences):
        SentenceManifest().write(folder, ((f"sentence {number}",) for number in range(60)), lambda rows: rows)
    store = RunStore(layout, plan.cycles, trains_start=True, precision=plan.precision)
    monkeypatch.setattr(costs, "time", SimpleNamespace(monotonic=count(step=2).__next__))
    # step 0 reads each of 60 sentences three times; those of the candidates are embedded once, two of them a pair
    sentences, passes = 4 * 3 * 60 + 60 / 2, 2 + 4 + 4
    searches = 60 * 60 / 200_000 / 2  # by BM25, once for both PLMs
    # two seconds for the thirty pairs that sixty sentences make
    expected = (2 / 30) * (2 * (sentences + 100 * passes) + searches)
    scorer = Scorer(GoldSets(None, ()), spearman, None, layout.gold_scratch)
    texts = SentenceManifest.load(layout.mining)[1]
    assert estimate_seconds(plan, store, texts, scorer) == pytest.approx(expected)


def test_the_trainings_are_described_with_step_0(tiny: Path, tmp_path: Path) -> None:
    step0 = tmp_path / "step0.yaml"
    step0.write_text("contrastive: {mlp_head: false, num_train_epochs: 3, precision: float32}\n", encoding="utf-8")
    arguments = ["--models", f"[{{bi_encoder: {tiny}, name: one}}]", "--distillation.step0", str(step0)]
    plan = make_plan(parse([*arguments, "--data.pool", "pairs.tsv", "--output_dir", str(tmp_path)]), 1)
    layout = RunLayout(tmp_path)
    SentenceManifest().write(layout.sentences, ((f"sentence {number}",) for number in range(200)), lambda rows: rows)
    PoolManifest().write(layout.pool, sample_pairs(96), lambda rows: rows)
    lines = describe_trainings(plan, layout)
    # 600 sentences in batches of 64
    assert lines[0] == "one: step 0: about 10 steps of 64 sentences, 3 epochs, learning rate 3e-05, float32"
    assert lines[1].startswith("one: step 0 takes about ")
    assert [line.partition(" of ")[0] for line in lines[2:4]] == ["one: each", "one: each"]
    assert [line.partition(" takes about ")[0] for line in lines[4:]] == [
        "one: training a cross-encoder",
        "one: training a bi-encoder",
    ]


@pytest.mark.parametrize("count", [1, 3, 7, 10])
def test_pairs_that_are_timed_come_from_all_of_the_pool(count: int) -> None:
    rows = spread(Dataset.from_dict({"row": range(10)}), count)["row"]
    assert len(set(rows)) == count and rows[0] == 0 and max(np.diff([*rows, 10])) <= -(-10 // count)


@pytest.mark.parametrize(
    ("sources", "embedded", "searched"),
    [("[bm25, document]", 50, 0), ("[bm25, neighbours]", 60, 60), ("[bm25]", 30, 0), ("[random, document]", 30, 0)],
)
def test_mining_costs_what_it_embeds_and_searches(
    sources: str, embedded: int, searched: int, tiny: Path, tmp_path: Path
) -> None:
    rows = "".join(f"sentence {number},{number // 30}\n" for number in range(60))
    (tmp_path / "texts.csv").write_text("sentence,page\n" + rows, encoding="utf-8")
    data = ["--data.sentences", str(tmp_path / "texts.csv"), "--mining.sources", sources]
    data += ["--data.document", "page"] if "document" in sources else []
    keys = [*data, "--mining.pairs", "10", "--mining.candidates", "2"]
    models = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny}, name: two}}]"
    plan = make_plan(parse(["--models", models, *keys, "--output_dir", str(tmp_path)]), 1)
    layout = RunLayout(tmp_path)
    build_sentences(ContrastiveDataConfig(sentences=[str(tmp_path / "texts.csv")], column="sentence"), layout.mining)
    work = mining_work(plan, layout)
    # ten sentences look for two candidates by each source; neighbours want all sixty
    assert (work.embed, work.search) == (embedded / 2 / 10, searched / 2 / 10)
    # ten searches by BM25 among sixty sentences
    assert work.gather == pytest.approx(10 * 60 / 200_000 / 2 / 10 if "bm25" in sources else 0)
    total = total_work(plan, layout) - sum(cycles_work(plan, name, 10) for name in plan.models)
    assert total == pytest.approx(work.gather + 2 * (work.embed + work.search))


@pytest.mark.parametrize(("length", "read"), [("num_train_epochs: 2", 2 * 60), ("max_steps: 7", 7 * 4)])
def test_step_0_costs_the_sentences_that_it_reads(length: str, read: int, tiny: Path, tmp_path: Path) -> None:
    texts = [str(tmp_path / "texts.txt")]
    Path(texts[0]).write_text("".join(f"sentence {number}\n" for number in range(60)), encoding="utf-8")
    section = f"contrastive: {{method: simcse, per_device_train_batch_size: 4, {length}}}\n"
    (tmp_path / "step0.yaml").write_text(section, encoding="utf-8")
    keys = ["--data.sentences", texts[0], "--mining.pairs", "10", "--distillation.step0", str(tmp_path / "step0.yaml")]
    plan = make_plan(parse(["--models", f"[{tiny}]", *keys, "--output_dir", str(tmp_path)]), 1)
    layout = RunLayout(tmp_path)
    for folder in (layout.mining, layout.sentences):
        build_sentences(ContrastiveDataConfig(sentences=texts), folder)
    # at four times the cost of a pass over the ten pairs
    assert step0_work(plan, layout) == 4 * read / 10
