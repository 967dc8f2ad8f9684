"""Trainings of one run, and of runs with other seeds, draw independently."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from conftest import sample_pairs
from datasets import Dataset

from te_trainer.config.commands import parse
from te_trainer.config.types import KINDS
from te_trainer.data import GoldSets
from te_trainer.distillation.plan import make_plan
from te_trainer.distillation.stages import DistillationStages
from te_trainer.metrics import spearman
from te_trainer.runs.layout import EncoderKey, RunLayout
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore
from te_trainer.runs.training import training_seed
from te_trainer.trainers.sampler import shuffled


def test_seeds_of_all_trainings_differ_and_fit_every_generator() -> None:
    seeds = [
        training_seed(seed, cycle, kind, model)
        for seed, cycle, kind, model in product([*range(50), *range(2000, 2050)], range(6), KINDS, range(3))
    ]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) < max(seeds) < 2**31
    assert max(seeds) > 2**30


def seeds_of(tmp_path: Path, seed: int, models: list[Path]) -> dict[EncoderKey, int]:
    """The seeds that a run gives its trainings, by cycle, PLM and kind."""
    entries = ", ".join(f"{{bi_encoder: {model}, name: plm{number}}}" for number, model in enumerate(models))
    config = parse(
        ["--models", f"[{entries}]", "--data.pool", "x.tsv", "--seed", str(seed), "--distillation.selection", "last"]
    )
    pairs = Dataset.from_list([{"sentence1": one, "sentence2": two} for one, two in sample_pairs(8)])
    scorer = Scorer(GoldSets(), spearman, None, tmp_path)
    store = RunStore(RunLayout(tmp_path), 3, trains_start=False, pairs=8, pool="", precision="float32")
    stages = DistillationStages(make_plan(config, 1), store, pairs, scorer, RunProgress(enabled=False))
    keys = [EncoderKey(*key) for key in product(range(1, 4), stages.models, KINDS)]
    return {key: stages.trainings.student(key).seed for key in keys}


def test_runs_and_plms_share_no_order(tiny: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    runs = {seed: seeds_of(tmp_path, seed, [tiny, tiny_roberta]) for seed in range(2021, 2027)}
    orders = {
        tuple(shuffled(40, seed, epoch).tolist())
        for seeds in runs.values()
        for seed in seeds.values()
        for epoch in range(3)
    }
    assert len(orders) == 6 * 3 * 2 * 2 * 3


def test_a_second_plm_changes_nothing_for_the_first(tiny: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    alone, both = (seeds_of(tmp_path, 2021, models) for models in ([tiny], [tiny, tiny_roberta]))
    assert alone.items() <= both.items()
