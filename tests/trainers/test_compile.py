"""Training a compiled model: `torch_compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import labelled
from safetensors import safe_open
from transformers import set_seed

from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)

KINDS: dict[str, tuple[Any, Any, Any]] = {
    "bi-encoder": (BiEncoder, BiEncoderTrainer, BiEncoderTrainingArguments),
    "cross-encoder": (CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments),
}


def trained(kind: str, start: Path, folder: Path, dev: bool, **values: Any) -> tuple[Any, Any]:
    """An encoder after its training, and its trainer; what is saved lies in `folder`."""
    make, train, arguments = KINDS[kind]
    set_seed(0)
    encoder = make.from_pretrained(str(start))
    batch = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "eval_steps": 2, "logging_steps": 1}
    args = arguments(output_dir=str(folder), precision="float32", disable_tqdm=True, **batch, **values)
    trainer = train(encoder, args, labelled(32), labelled(16) if dev else None)
    trainer.train()
    trainer.save_model(str(folder))
    return encoder, trainer


@pytest.mark.parametrize("dev", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_trains_and_what_is_saved_of_it_loads(
    kind: str, dev: bool, tiny: Path, tmp_path: Path
) -> None:
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    encoder, trainer = trained(kind, tiny, tmp_path / "compiled", dev, **compiled)
    assert type(trainer.model_wrapped).__name__ == "OptimizedModule"
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == trainer.state.max_steps and np.isfinite(losses).all()
    if dev:
        assert trainer.evaluate()["eval_spearman"] == pytest.approx(trainer.state.best_metric, abs=1e-6)
    with safe_open(tmp_path / "compiled" / "model.safetensors", "pt") as weights:
        # BERT's own pooler is not trained, and saved all the same
        assert set(weights.keys()) == {*encoder.model.state_dict(), *getattr(encoder, "pooler", {})}
    pairs = labelled(32)
    again = KINDS[kind][0].from_pretrained(str(tmp_path / "compiled"))
    np.testing.assert_allclose(score_pairs(again, pairs), score_pairs(encoder, pairs), atol=1e-6)
    # AdamW moves every weight by about its learning rate a step, however small the gradient
    before = KINDS[kind][0].from_pretrained(str(tiny)).model.base_model.state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    assert (again.model.base_model.state_dict()[name] - before[name]).abs().max() > 1e-5
