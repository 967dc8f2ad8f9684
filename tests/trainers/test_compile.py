"""Training a compiled model: `torch_compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import labelled
from safetensors import safe_open
from test_trainer_evaluation import make
from tiny_trainings import load
from transformers import TrainerCallback

from te_trainer.labelling import score_pairs


def trained(kind: str, start: Path, folder: Path, dev: bool, **values: Any) -> tuple[Any, Any]:
    """An encoder after its training, and its trainer; what is saved lies in `folder`."""
    settings = {"per_device_train_batch_size": 8, "eval_steps": 2, "logging_steps": 1, "max_steps": 3, **values}
    trainer = make(kind, str(start), folder, labelled(16), labelled(16) if dev else None, **settings)
    trainer.train()
    trainer.save_model(str(folder))
    return trainer.encoder, trainer


@pytest.mark.parametrize(("kind", "dev"), [("bi-encoder", True), ("cross-encoder", False)])
def test_a_compiled_model_trains_and_what_is_saved_of_it_loads(
    kind: str, dev: bool, tiny: Path, tmp_path: Path
) -> None:
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    encoder, trainer = trained(kind, tiny, tmp_path / "compiled", dev, **compiled)
    assert type(trainer.model_wrapped).__name__ == "OptimizedModule"
    assert trainer.args.tf32 is False, "transformers would turn it on"
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == trainer.state.max_steps and np.isfinite(losses).all()
    if dev:
        assert trainer.evaluate()["eval_spearman"] == pytest.approx(trainer.state.best_metric, abs=1e-6)
    with safe_open(tmp_path / "compiled" / "model.safetensors", "pt") as weights:
        # BERT's own pooler is not trained, and saved all the same
        assert set(weights.keys()) == {*encoder.model.state_dict(), *getattr(encoder, "pooler", {})}
    pairs = labelled(32)
    again = load(kind, str(tmp_path / "compiled"))
    np.testing.assert_allclose(score_pairs(again, pairs), score_pairs(encoder, pairs), atol=1e-6)
    # AdamW moves every weight by about its learning rate a step, however small the gradient
    before = load(kind, str(tiny)).model.base_model.state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    assert (again.model.base_model.state_dict()[name] - before[name]).abs().max() > 1e-5


def shortened() -> str:
    return torch.backends.cuda.matmul.fp32_precision


def test_tf32_ends_with_the_training_that_asks_for_it(tiny: Path, tmp_path: Path) -> None:
    """Scores are float32. accelerate turns TF32 on for a compiled model on a GPU, as this callback does."""
    seen: list[str] = []

    class AsCompiled(TrainerCallback):
        def on_init_end(self, *args: Any, **kwargs: Any) -> None:
            torch.backends.cuda.matmul.allow_tf32 = True

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            seen.append(shortened())

    for wanted in (None, True, False):
        trainer = make("bi-encoder", str(tiny), tmp_path, labelled(8), max_steps=1, callbacks=[AsCompiled()])
        assert shortened() != "tf32"
        trainer.args.tf32 = wanted  # a CPU's arguments refuse it
        trainer.train()
        assert shortened() != "tf32" and torch.backends.cuda.matmul.allow_tf32 is False
    assert [each == "tf32" for each in seen] == [False, True, False]
