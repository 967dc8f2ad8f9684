"""The official code's optimiser, schedule and number of steps, computed by hand from its formulas.

The official code is amzn/trans-encoder at 368f722 with sentence-transformers 2.0.0 and transformers 4.9.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_trainings import KINDS, labelled, load, trainer_of, without_dropout
from torch import Tensor
from transformers import TrainerCallback

from te_trainer.config.schema import CrossEncoderConfig
from te_trainer.errors import InputError
from te_trainer.runs.checks import check_section
from te_trainer.trainers import CrossEncoderTrainingArguments


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().double().clone() for name, weight in model.named_parameters()}


class Steps(TrainerCallback):
    """Weights around each step, and the learning rate and epsilon of each."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.epsilons: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weights.append(weights_of(kwargs["model"]))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.epsilons.append(kwargs["optimizer"].param_groups[1]["eps"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weights.append(weights_of(kwargs["model"]))


def gradients_kept(found: list[dict[str, Tensor]]) -> Any:
    """Makes trainers that keep each step's gradients, as they are before they are clipped."""

    def make(base: type) -> type:
        class Keeps(base):  # type: ignore[misc]
            def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
                loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
                found.append({name: weight.grad.double().clone() for name, weight in model.named_parameters()})
                return loss

        return Keeps

    return make


def official_steps(
    weights: dict[str, Tensor], gradients: list[dict[str, Tensor]], rate: float, warmup: int
) -> list[dict[str, Tensor]]:
    """What transformers 4.9's AdamW and sentence-transformers 2.0.0 make of weights, step by step, in float64."""
    weights = {name: weight.clone() for name, weight in weights.items()}
    first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    total, found = len(gradients), []
    for step, raw in enumerate(gradients):
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in raw.values()))
        learning_rate = rate * (step / warmup if step < warmup else (total - step) / (total - warmup))
        for name, gradient in raw.items():
            gradient = gradient * min(1.0, 1.0 / (norm + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            size = learning_rate * math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            weights[name] = weights[name] - size * first[name] / (second[name].sqrt() + 1e-6)
            if not any(part in name for part in ("bias", "LayerNorm.bias", "LayerNorm.weight")):
                weights[name] = weights[name] - learning_rate * 0.01 * weights[name]
        found.append({name: weight.clone() for name, weight in weights.items()})
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_official_formula(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    gradients: list[dict[str, Tensor]] = []
    steps = Steps()
    values = {"official_adamw": True, "num_train_epochs": 2, "warmup_steps": 0.1, "learning_rate": 1e-3}
    encoder = without_dropout(load(kind, models["bert"]))
    trainer = trainer_of(encoder, tmp_path, labelled(), base=gradients_kept(gradients), callbacks=[steps], **values)
    trainer.train()
    norms = [math.sqrt(sum(float((gradient**2).sum()) for gradient in each.values())) for each in gradients]
    assert max(norms) > 1  # clipped
    expected = official_steps(steps.weights[0], gradients, 1e-3, warmup=1)
    assert len(expected) == len(steps.weights) - 1 == 10
    for found, wanted in zip(steps.weights[1:], expected, strict=True):
        for name, weight in wanted.items():
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6, msg=name)
    moved = max(float((steps.weights[-1][name] - steps.weights[0][name]).abs().max()) for name in expected[0])
    assert moved > 1e-3
    assert steps.epsilons == pytest.approx([1e-6 / math.sqrt(1 - 0.999**step) for step in range(1, 11)])
    assert steps.epsilons[0] == pytest.approx(3.16e-5, rel=1e-3)


def test_without_the_key_torchs_epsilon_holds(models: dict[str, str], tmp_path: Path) -> None:
    steps = Steps()
    trainer_of(load("bi-encoder", models["bert"]), tmp_path, labelled(), callbacks=[steps]).train()
    assert set(steps.epsilons) == {1e-8}


@pytest.mark.parametrize(
    ("kind", "size", "epochs", "values", "totals"),
    [
        ("cross-encoder", 32, 1, {"both_orders": True, "warmup_steps": 0.1}, {2000: 125, 200: 13}),
        ("bi-encoder", 128, 3, {}, {2000: 48, 200: 6}),
    ],
)
def test_there_are_as_many_steps_as_in_the_official_code(
    kind: str,
    size: int,
    epochs: int,
    values: dict[str, Any],
    totals: dict[int, int],
    models: dict[str, str],
    tmp_path: Path,
) -> None:
    """With the paper's batches, and both orders of a pair for the cross-encoder; of 2000 and of 200 pairs."""
    values = {"num_train_epochs": epochs, "per_device_train_batch_size": size, "learning_rate": 2e-5, **values}
    for pairs, total in totals.items():
        rows = Dataset.from_list([dict(labelled(1)[0])] * pairs)
        steps = Steps()
        trainer = trainer_of(load(kind, models["bert"]), tmp_path, rows, callbacks=[steps], **values)
        assert epochs * len(trainer.get_train_dataloader()) == total
    trainer.train()
    warmup = math.ceil(values.get("warmup_steps", 0) * total)
    expected = [2e-5 * (step / warmup if step < warmup else (total - step) / (total - warmup)) for step in range(total)]
    assert steps.rates == pytest.approx(expected)


def test_a_second_training_of_a_trainer_goes_on(models: dict[str, str], tmp_path: Path) -> None:
    steps = Steps()
    trainer = trainer_of(
        load("bi-encoder", models["bert"]), tmp_path, labelled(), callbacks=[steps], official_adamw=True, max_steps=2
    )
    trainer.train()
    trainer.train()
    assert steps.epsilons == pytest.approx([1e-6 / math.sqrt(1 - 0.999**step) for step in range(1, 5)])


def test_what_cannot_go_with_it_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    for values, about in (({"optim": "adafactor"}, "adafactor"), ({"adam_epsilon": 1e-7}, "adam_epsilon is 1e-07")):
        with pytest.raises(InputError, match=about):
            CrossEncoderTrainingArguments(output_dir=str(tmp_path), official_adamw=True, **values)
        with pytest.raises(InputError, match=f"cross_encoder.official_adamw: .*{about}"):
            check_section("cross_encoder", CrossEncoderConfig(official_adamw=True, training=values))
    encoder: Any = load("cross-encoder", models["bert"])
    plain = trainer_of(encoder, tmp_path, labelled())
    args = CrossEncoderTrainingArguments(output_dir=str(tmp_path), official_adamw=True)
    own = torch.optim.SGD(encoder.model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="the optimiser is SGD"):
        type(plain)(encoder, args, labelled(), optimizers=(own, None))
