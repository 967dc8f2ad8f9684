"""A cross-encoder that has not learnt from a small pool learns pairs of the pool's sentences too.

What one process learns and reports then is in `test_auto.py`, which has such a run.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import brief_gold, results_of, tiny_arguments
from forked import run_forked, run_ranks, script_with
from sentence_transformers import SentenceTransformer

from te_trainer.config.commands import parse
from te_trainer.data import PoolManifest, build_pool, pairs_of
from te_trainer.distillation.combine import quantiles
from te_trainer.distillation.growing import grown_pairs
from te_trainer.distillation.plan import make_plan
from te_trainer.files.records import DamagedError
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.store import RunStore

# each rank writes what the second training of a student learns
TELLING = """
import os
from te_trainer.runs.training import Training
run = Training.run
def run_and_tell(self, title, work, pairs):
    if title.endswith("again"):
        pairs.to_json(self.run_dir.with_name(f"{self.folder.parent.name}-{os.environ.get('RANK', 0)}.jsonl"))
    run(self, title, work, pairs)
Training.run = run_and_tell
"""


def without_gold(model: Path, output: Path, *more: str) -> list[str]:
    """Arguments of a run whose encoders no gold score chooses."""
    few = brief_gold(output.parent)
    return tiny_arguments(model, output, *few, "--distillation.selection", "auto", "--data.dev", "null", *more)


def learnt_pairs(folder: Path, name: str, rank: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}-{rank}.jsonl").read_text(encoding="utf-8").splitlines()]


def mined_pairs(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "mining" / "cycle-1.json").read_text(encoding="utf-8"))
    return found


def cosines(model: Path, rows: Sequence[dict[str, Any]], pooling: str = "mean") -> np.ndarray:
    encoder = SentenceTransformer(str(model), device="cpu")
    encoder.max_seq_length = 32
    encoder[1].pooling_mode = pooling
    one, two = (encoder.encode([row[name] for row in rows]) for name in ("sentence1", "sentence2"))
    return encoder.similarity_pairwise(one, two).numpy()


def test_a_very_small_pool_is_learnt_with_random_pairs_at_once(tiny: Path, tmp_path: Path) -> None:
    """Where the configuration does not say how long it is learnt."""
    short = ("--data.max_pairs", "40", "--distillation.cycles", "1")
    arguments = without_gold(tiny, tmp_path / "run", *short, "--cross_encoder.num_train_epochs", "null")
    done = run_forked("trans_encoder.py", arguments)
    assert done.returncode == 0, done.stderr
    begins = done.stderr.index("train cross-encoder | begins")
    assert done.stderr.index("cycle 1: 80 random pairs of the pool's sentences are labelled") < begins
    assert "pairs of the pool and random ones of its sentences" in done.stderr
    entry = results_of(tmp_path / "run")["health"]["cycles"][0]["tiny"]["cross-encoder"]
    # 15 epochs of 32 pairs in both orders, in batches of 32; a random model may learn nothing, and is trained once more
    length = {1: 30, 2: 90}[entry["attempt"]]
    assert length <= entry["steps"] <= 1.05 * length and entry["added_pairs"] == 80
    assert ("It is trained once more, 3 times as long\n" in done.stderr) == (entry["attempt"] == 2)


def test_ranks_learn_the_same_and_all_models_label(tiny: Path, tmp_path: Path) -> None:
    spread = ("--distillation.cross_encoder_labels", "quantiles")
    arguments = without_gold(tiny, tmp_path / "run", *spread)
    arguments[1] = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny}, name: two, pooling: cls}}]"
    done = run_ranks(script_with(tmp_path, TELLING), arguments)
    assert done.returncode == 0, done.stderr
    rows = learnt_pairs(tmp_path, "one")
    for name in ("one", "two"):
        for rank in (0, 1):
            assert learnt_pairs(tmp_path, name, rank) == rows
    # quantiles of all pairs, those that are held out too
    texts = list(pairs_of(PoolManifest.load(tmp_path / "run" / "pool")[1]))
    mined = mined_pairs(tmp_path / "run")
    texts += zip(mined["sentence1"], mined["sentence2"], strict=True)
    both = [dict(zip(("sentence1", "sentence2"), pair, strict=True)) for pair in texts]
    means = np.mean([cosines(tiny, both, pooling) for pooling in ("mean", "cls")], axis=0)
    expected = dict(zip(texts, quantiles(means), strict=True))
    labels = [expected[row["sentence1"], row["sentence2"]] for row in rows]
    np.testing.assert_allclose([row["label"] for row in rows], labels, atol=0.02)


def test_a_large_pool_is_learnt_for_longer_alone(tiny: Path, tmp_path: Path) -> None:
    output, line = tmp_path / "run", "from te_trainer.distillation import growing; growing.LARGEST_POOL = 96"
    done = run_forked(script_with(tmp_path, line), without_gold(tiny, output))
    assert done.returncode == 0, done.stderr
    assert "It is trained once more, 3 times as long\n" in done.stderr
    entry = results_of(output)["health"]["cycles"][0]["tiny"]["cross-encoder"]
    assert (entry["attempt"], entry["steps"]) == (2, 18)
    assert "added_pairs" not in entry
    assert "grow" not in results_of(output)["seconds"]
    assert not (output / "mining").exists()


def test_sentences_that_are_all_paired_make_no_other_pair(tiny: Path, tmp_path: Path) -> None:
    pairs = itertools.combinations(("my router", "the lamp is on", "a plan with more data"), 2)
    lines = ["sentence1\tsentence2", *map("\t".join, pairs)]
    (tmp_path / "pool.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    keys = ["--data.pool", str(tmp_path / "pool.tsv"), "--data.test", "[]", "--distillation.cycles", "1"]
    keys += ["--cross_encoder.num_train_epochs", "null"]  # so small a pool grows at once
    done = run_forked("trans_encoder.py", without_gold(tiny, tmp_path / "run", *keys))
    assert done.returncode == 0, done.stderr
    assert "cycle 1: the pool's sentences make no other pair" in done.stderr
    assert "random pairs of the pool's sentences" not in done.stderr


def test_pairs_that_the_start_cannot_tell_apart_are_not_learnt(tiny: Path, tmp_path: Path) -> None:
    opening = " ".join(f"word{number}" for number in range(40))
    letters = [f"{opening} {number}" for number in range(5)]
    lines = [f"{letter}\tmy lamp has {number} bulbs" for number, letter in enumerate(letters)]
    (tmp_path / "pool.tsv").write_text("\n".join(["sentence1\tsentence2", *lines]) + "\n", encoding="utf-8")
    plan = make_plan(parse(tiny_arguments(tiny, tmp_path / "run", pool=[str(tmp_path / "pool.tsv")])), 1)
    build_pool(plan.config.data, tmp_path / "pool")
    store = RunStore(RunLayout(tmp_path / "run"), 1, trains_start=False, precision=plan.precision)
    grown = grown_pairs(plan, store, PoolManifest.load(tmp_path / "pool")[1], 1)
    assert len(grown["label"]) == 10
    assert max(grown["label"]) < 0.9999
    assert not [pair for pair in zip(grown["sentence1"], grown["sentence2"], strict=True) if {*pair} <= {*letters}]


def test_damaged_pairs_are_named(tmp_path: Path) -> None:
    store = RunStore(RunLayout(tmp_path), cycles=1, trains_start=False, precision="float32")
    file = tmp_path / "mining" / "cycle-1.json"
    file.parent.mkdir()
    file.write_text('{"seconds": 1, "sentence1": ["a b c"], "sent', encoding="utf-8")
    with pytest.raises(DamagedError, match=rf"{file} is damaged; delete it, and the run's command mines the same"):
        store.grown_pairs(1)
