"""A decoder with LoRA under ZeRO-3 on two processes: what is merged is what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SAMPLE, results_of
from forked import run_ranks
from references import their_scores
from safetensors.torch import load_file
from scipy.stats import spearmanr
from test_engines import JOB, job, told
from tiny_decoders import save_decoder

from te_trainer.data import load_gold

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def test_the_merged_encoders_score_as_the_trained_ones_did(tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "llama", "llama")
    lora = ["--lora.rank", "4", "--lora.keep_adapter", "true", "--bi_encoder.pooling", "last"]
    rates = ["--cross_encoder.learning_rate", "1e-2", "--bi_encoder.learning_rate", "1e-2"]
    output = tmp_path / "run"
    command = job(model, output, 2, 1, *lora, *rates)
    finished = run_ranks(JOB, command, told("cpu_deepspeed_zero3.yaml"))
    assert finished.returncode == 0, finished.stderr[-4000:]
    results = results_of(output)
    gold = load_gold(str(SAMPLE / "dev.tsv"), "dev", {})
    for kind in ("bi-encoder", "cross-encoder"):
        record = json.loads((output / "cycle-1" / "tiny" / f"{kind}.training.json").read_text(encoding="utf-8"))
        assert record["engine"] == "DeepSpeedEngine"
        assert 0 < record["trainable"] < record["parameters"] / 3
        kept = results["final"]["tiny"][kind]["dev"]
        assert dict(record["dev_curve"])[record["best_step"]] == pytest.approx(kept, abs=1e-3)
        folder = output / "tiny" / kind
        adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        # these are zero before the training
        assert all(float(weight.abs().max()) > 1e-3 for name, weight in adapter.items() if "lora_B" in name)
        scores = their_scores(folder, gold.sentence1, gold.sentence2)
        assert spearmanr(scores, gold.scores).statistic == pytest.approx(kept, abs=1e-3)
