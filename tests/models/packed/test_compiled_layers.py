"""Of a compiled model that packs on a GPU, layers are compiled: one graph for all of them and for rows of all sizes.

The kernel is that of test_flash.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DynamoBackend
from conftest import labelled
from test_flash import Kernel, kernel, two_of
from test_pack import batch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import TrainerCallback

import te_trainer
from te_trainer.models.packed import use_backend
from te_trainer.models.packed.when_to_pack import PACKED_ON_GPU

__all__ = ["kernel"]  # a fixture


def layers_of(model: Any) -> list[Any]:
    base = model.base_model
    return list((base.transformer if hasattr(base, "transformer") else base.encoder).layer)


def is_compiled(model: Any) -> bool:
    return all(layer._compiled_call_impl is not None for layer in layers_of(model))


# forward and backward are traced without values, as they are for a GPU
BACKEND = "aot_eager"


@pytest.fixture
def stats() -> Any:
    torch._dynamo.reset()
    counters.clear()
    return counters["stats"]


def outputs_and_gradients(model: Any, part: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    model.zero_grad()
    output = part(**inputs)[0]
    output.square().sum().backward()
    return [output, *(weight.grad for weight in model.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("name", ["Bert", "DistilBert"])
def test_one_graph_gives_what_the_layers_give(name: str, kernel: Kernel, stats: Any) -> None:
    models = [two_of(name, dropout=0.1)[1].double().train() for _ in range(2)]
    for model in models:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1
    plain, compiled = models
    compiler = {"backend": BACKEND, "fullgraph": True}
    with use_backend(plain, PACKED_ON_GPU), use_backend(compiled, PACKED_ON_GPU, compiler=compiler):
        for sentences in (9, 37, 1, 20):
            inputs = batch(name, sentences)
            for find in (lambda model: model, lambda model: model.base_model):
                expected, found = (outputs_and_gradients(model, find(model), inputs) for model in models)
                assert len(found) > 30
                assert all(map(torch.equal, found, expected))
    assert len(kernel.calls) == 2 * 4 * 2 * 2
    assert stats["unique_graphs"] == 1
    assert not any(layer._compiled_call_impl for layer in layers_of(compiled))


def test_a_compiled_training_packs(
    tiny: Path, tmp_path: Path, kernel: Kernel, stats: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("te_trainer.trainers.computation.choose_backend", lambda *_, **__: PACKED_ON_GPU)
    losses, seen = [], set()

    class Look(TrainerCallback):
        def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
            seen.add(is_compiled(model))

    for values in ({}, {"torch_compile": True, "torch_compile_backend": BACKEND}):
        arguments = te_trainer.BiEncoderTrainingArguments(
            output_dir=str(tmp_path / str(len(values))),
            precision="bfloat16",
            per_device_train_batch_size=6,
            num_train_epochs=1,
            eval_steps=2,
            logging_steps=1,
            **values,
        )
        torch.manual_seed(0)
        encoder = te_trainer.BiEncoder.from_pretrained(str(tiny))
        trainer = te_trainer.BiEncoderTrainer(encoder, arguments, labelled(32), labelled(20), callbacks=[Look()])
        trainer.train()
        history = trainer.state.log_history
        losses.append([entry[key] for entry in history for key in ("loss", "eval_loss") if key in entry])
        assert seen == {bool(values)}
        seen.clear()
        assert trainer.model_wrapped is trainer.model is encoder.model
        assert not any(layer._compiled_call_impl for layer in layers_of(encoder.model))
    assert trainer.accelerator.state.dynamo_plugin.backend == DynamoBackend.AOT_EAGER
    assert stats["unique_graphs"] == 2, "a graph for training and one for evaluation"
    assert len(losses[0]) > 8
    # gradients of dropout are rounded at another place
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
