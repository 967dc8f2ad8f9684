"""Step 0 of the main job: it makes the bi-encoders that the cycles start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import brief_gold, results_of, tiny_arguments
from datasets import Dataset, load_from_disk
from forked import Forked, run_forked
from safetensors.torch import load_file

from te_trainer.config.commands import parse
from te_trainer.config.schema import DataConfig
from te_trainer.data import PoolManifest, build_pool
from te_trainer.distillation.plan import make_plan
from te_trainer.distillation.preparation import check_models, read_step0_sentences
from te_trainer.errors import InputError
from te_trainer.hub.card import Upload, model_card
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder
from te_trainer.runs.finished import FinishedRun, load_finished

JOB = "trans_encoder.py"

pytestmark = pytest.mark.slow

SECTION = {
    "method": "mirror_bert",
    "pooling": "mean",
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
    "learning_rate": 1.0e-3,
    "eval_steps": 2,
}


@pytest.fixture(scope="module")
def step0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("step0") / "step0.yaml"
    path.write_text(yaml.safe_dump({"model": "some-other-model", "contrastive": SECTION}), encoding="utf-8")
    return path


def arguments(tiny: Path, step0: Path, output: Path, *more: str) -> list[str]:
    """One cycle, whose bi-encoder hardly leaves its start."""
    one = ["--distillation.cycles", "1", "--distillation.step0", str(step0), "--bi_encoder.num_train_epochs", "1"]
    more = ("--distillation.keep_cycles", "true", "--bi_encoder.learning_rate", "1e-9", *more)
    return tiny_arguments(tiny, output, *one, *brief_gold(step0.parent), *more)


@pytest.fixture(scope="module")
def output(tiny: Path, step0: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run with step 0 on the sentences of its own pool."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finished = run_forked(JOB, arguments(tiny, step0, folder))
    assert finished.returncode == 0, finished.stderr
    assert "step 0 tiny: contrastive training" in finished.stderr
    assert "step 0: the run's texts: 192 read" in finished.stderr
    return folder


def test_the_cycles_start_from_what_step_0_makes(output: Path, tiny: Path) -> None:
    results = results_of(output)
    made = output / "start" / "tiny" / "bi-encoder"
    training = json.loads(made.with_name("bi-encoder.training.json").read_text(encoding="utf-8"))
    pool = Dataset.from_file(str(output / "pool" / "pairs.arrow"))
    sentences = {*pool["sentence1"], *pool["sentence2"]}
    assert training["steps"] == 2 * (len(sentences) // 8)
    assert results["seconds"]["step0"] == training["seconds"]
    best = max(score for _, score in training["dev_curve"])
    assert results["start"]["tiny"]["bi-encoder"]["dev"] == pytest.approx(best, abs=0.01)

    labels = load_from_disk(str(output / "cycle-1" / "tiny" / "bi-encoder-labels"))["score"][:]
    np.testing.assert_allclose(labels, score_pairs(BiEncoder.from_pretrained(str(made)), pool), atol=1e-5)
    start, plain, student = (
        load_file(path / "model.safetensors")["embeddings.word_embeddings.weight"]
        for path in (made, tiny, output / "cycle-1" / "tiny" / "bi-encoder")
    )
    assert (start - plain).abs().max() > 1e-3
    assert (student - start).abs().max() < 1e-6
    cross = load_file(output / "cycle-1" / "tiny" / "cross-encoder" / "model.safetensors")
    moved = cross["bert.embeddings.word_embeddings.weight"]
    assert (moved - plain).abs().max() < 1e-3


def test_it_is_published_as_a_run_with_cycles(output: Path) -> None:
    finished = load_finished(output)
    assert isinstance(finished, FinishedRun)
    assert set(finished.kinds) == {"bi-encoder", "cross-encoder"}
    card = model_card(finished, Upload("me/x", "tiny", ["bi-encoder"], False), None)
    assert (
        ", of which step 0, contrastive training on sentences of the run's own texts, made a bi-encoder; these are"
        in card
    )


def test_another_content_of_the_file_is_another_run(output: Path, tiny: Path, tmp_path: Path, step0: Path) -> None:
    begun = yaml.safe_load((output / "run.yaml").read_text(encoding="utf-8"))
    assert SECTION.items() <= begun["config"]["step0"]["contrastive"].items()
    assert begun["step0"]["temperature"] == 0.04
    kept = step0.read_text(encoding="utf-8")
    step0.write_text(kept.replace("0.001", "0.002"), encoding="utf-8")
    try:
        finished = run_forked(JOB, arguments(tiny, step0, output))
    finally:
        step0.write_text(kept, encoding="utf-8")
    assert finished.returncode == 2
    assert "step0.contrastive.learning_rate (was 0.001, is 0.002)" in finished.stderr


def test_a_kill_within_step_0_changes_nothing(output: Path, tiny: Path, step0: Path, tmp_path: Path) -> None:
    command = arguments(tiny, step0, tmp_path / "killed")
    process = Forked(JOB, command, clock=0)
    checkpoints = tmp_path / "killed" / "start" / "tiny" / ".training-bi-encoder"
    process.kill_at(checkpoints, "checkpoint-*/checkpoint-is-whole")
    assert checkpoints.exists()
    finished = run_forked(JOB, command)
    assert finished.returncode == 0, finished.stderr
    both = []
    for folder in (output, tmp_path / "killed"):
        results = results_of(folder)
        weights = (folder / "start" / "tiny" / "bi-encoder" / "model.safetensors").read_bytes()
        both.append((results["start"], results["cycles"], weights))
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "distillation.step0: .*step0.yaml cannot be read"),
        ({"contrastive": {"tempreature": 1}}, "distillation.step0: unknown key 'contrastive.tempreature'"),
        ({"contrastive": {"method": "simcse"}}, "contrastive.pooling is cls, but tiny's pooling is mean; set both"),
        ({"contrastive": {**SECTION, "per_device_train_batch_size": 5000}}, "do not fill one batch of 5000"),
        ({"contrastive": SECTION, "data": {"sentences": ["none.txt"]}}, "none.txt: the file does not exist"),
    ],
    ids=["no file", "unknown key", "pooling", "batch", "sentences"],
)
def test_what_step_0_cannot_use_is_refused(content: Any, words: str, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "step0.yaml"
    if content is not None:
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        config = parse(arguments(tiny, path, tmp_path / "out"))
        plan = make_plan(config, 1)
        check_models(plan)
        build_pool(DataConfig(pool=config.data.pool, max_pairs=32), tmp_path / "pool")
        with read_step0_sentences(plan, tmp_path / "sentences", lambda: PoolManifest.load(tmp_path / "pool")[1]):
            pass
    assert not (tmp_path / "sentences").exists()
