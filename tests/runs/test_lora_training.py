"""A training stage with LoRA leaves plain weights, and says what it cost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
from conftest import SAMPLE, brief_dev, results_of, sample_pairs, tiny_arguments
from datasets import Dataset
from forked import run_forked
from references import their_scores
from rich.console import Console
from sentence_transformers import SentenceTransformer
from tiny_decoders import save_decoder
from transformers import AutoModel, AutoModelForSequenceClassification, set_seed

from te_trainer.config.schema import LoraConfig
from te_trainer.data import load_gold
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.training import Training

KINDS = ["bi-encoder", "cross-encoder"]
AUTO = {"bi-encoder": AutoModel, "cross-encoder": AutoModelForSequenceClassification}


def pairs(count: int = 32) -> Dataset:
    texts = sample_pairs(count)
    labels = (np.random.default_rng(0).permutation(count) / count).astype(np.float32)
    return Dataset.from_dict(
        {"sentence1": [one for one, _ in texts], "sentence2": [two for _, two in texts], "label": labels}
    )


def load(kind: str, folder: str) -> Encoder:
    set_seed(5)
    return BiEncoder.from_pretrained(folder) if kind == "bi-encoder" else CrossEncoder.from_pretrained(folder)


def train(kind: Any, start: str, folder: Path, lora: LoraConfig) -> tuple[dict[str, Any], str]:
    """The record and the log of a training of two epochs."""
    log = io.StringIO()
    progress = RunProgress(console=Console(file=log, soft_wrap=True, width=200))
    training = Training(
        folder=folder,
        kind=kind,
        load=lambda: load(kind, start),
        values={
            "precision": "float32",
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 5e-3,
            "eval_steps": 3,
        },
        dev=brief_dev(),
        metric=spearman,
        seed=5,
        progress=progress,
        run_dir=folder.parent,
        section=kind.replace("-", "_"),
        lora=lora,
    )
    training.run(f"train {kind}", 1, pairs())
    assert not training.checkpoint_dir.exists()
    return json.loads(training.record.read_text(encoding="utf-8")), log.getvalue()


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, start: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An encoder beside whose weights its adapter is kept, in a folder named for its kind, and its record."""
    folder = tmp_path_factory.mktemp("trained") / request.param
    return folder, train(request.param, start, folder, LoraConfig(rank=2, keep_adapter=True))[0]


def test_the_result_is_plain_weights_that_everything_loads(start: str, trained: tuple[Path, Any]) -> None:
    folder, record = trained
    kind = folder.name
    assert {path.name for path in folder.parent.iterdir()} == {kind, f"{kind}.training.json"}
    _, info = AUTO[kind].from_pretrained(folder, output_loading_info=True)
    assert not {key for key in info["missing_keys"] if not key.startswith("pooler.")}
    assert not info["unexpected_keys"]

    encoder = load(kind, str(folder))
    ours = score_pairs(encoder, pairs())
    assert np.abs(ours - score_pairs(load(kind, start), pairs())).max() > 0.01
    scores = their_scores(folder, pairs()["sentence1"][:], pairs()["sentence2"][:])
    np.testing.assert_allclose(ours, scores, rtol=0, atol=1e-5)

    # The dev score of the best checkpoint is that of what was kept of it.
    gold = brief_dev()
    kept = spearman(score_pairs(encoder, gold.columns), gold.scores)
    assert dict(record["dev_curve"])[record["best_step"]] == pytest.approx(kept, abs=1e-4)


def test_an_adapter_that_is_kept_gives_the_same_scores_through_peft(start: str, trained: tuple[Path, Any]) -> None:
    kind, adapter = trained[0].name, trained[0] / "adapter"
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    encoder = load(kind, start)
    encoder.model = peft.PeftModel.from_pretrained(encoder.model, str(adapter))  # type: ignore[assignment]
    merged = score_pairs(load(kind, str(trained[0])), pairs())
    np.testing.assert_allclose(score_pairs(encoder, pairs()), merged, rtol=0, atol=1e-5)


def test_a_training_says_and_records_how_much_it_trains(start: str, tmp_path: Path) -> None:
    weights = BiEncoder.from_pretrained(start).model.num_parameters()
    adapters = 2 * (4 * 2 * (32 + 32) + 2 * 2 * (32 + 64))
    for lora, trained, all_of_them in ((None, weights, weights), (2, adapters, weights + adapters)):
        record, log = train("bi-encoder", start, tmp_path / f"rank-{lora}", LoraConfig(rank=lora))
        assert (record["trainable"], record["parameters"]) == (trained, all_of_them)
        assert not list(tmp_path.rglob("adapter*")), "they are kept where one asks for them"
        assert log.count(f"parameters ({100 * trained / all_of_them:.2f} %) are trained; batches of 8 pairs") == 1


@pytest.mark.slow
def test_a_run_with_a_decoder_carries_adapters_and_prompt_to_its_end(tmp_path: Path) -> None:
    plm = save_decoder(tmp_path / "llama", "llama")
    more = ["--lora.rank", "2", "--lora.keep_adapter", "true", "--bi_encoder.prompt", "Query: "]
    short = ["--distillation.cycles", "1", "--bi_encoder.pooling", "last", "--data.max_pairs", "48"]
    finished = run_forked("trans_encoder.py", tiny_arguments(plm, tmp_path / "run", *short, *more))
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("are trained; batches of") == 2
    final = tmp_path / "run" / "tiny"
    gold = load_gold(str(SAMPLE / "dev.tsv"), "dev", {})
    for kind in KINDS:
        assert (final / kind / "adapter" / "adapter_model.safetensors").is_file()
        assert (final / kind / "model.safetensors").is_file()
        assert not (final / kind / "adapter_model.safetensors").exists()
        kept = results_of(tmp_path / "run")["final"]["tiny"][kind]["dev"]
        scores = their_scores(final / kind, gold.sentence1, gold.sentence2)
        assert spearman(scores, np.array(gold.scores)) == pytest.approx(kept, abs=1e-3)
    bi = SentenceTransformer(str(final / "bi-encoder"), device="cpu")
    assert bi.prompts[bi.default_prompt_name] == "Query: "
