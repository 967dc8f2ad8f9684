"""Short trainings of tiny encoders: what makes them, watches them, kills them and compares what they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import sample_pairs
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.lora import peft_config
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)

CLASSES: dict[str, Any] = {
    "bi-encoder": (BiEncoderTrainer, BiEncoderTrainingArguments),
    "cross-encoder": (CrossEncoderTrainer, CrossEncoderTrainingArguments),
}
KINDS = list(CLASSES)
PAIRS = 20


def labelled(count: int = PAIRS) -> Dataset:
    """Pairs with labels in [0, 1), no two alike."""
    pairs = sample_pairs(count)
    labels = np.random.default_rng(0).permutation(count) / count
    return Dataset.from_dict(
        {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs], "label": labels}
    )


def load(kind: str, model: str) -> Encoder:
    torch.manual_seed(0)
    return BiEncoder.from_pretrained(model) if kind == "bi-encoder" else CrossEncoder.from_pretrained(model)


def trainer_of(
    encoder: Encoder | str,
    output: Path,
    train: Dataset | None,
    dev: Dataset | None = None,
    *,
    kind: str | None = None,
    base: Callable[[type], type] = lambda made: made,
    callbacks: list[TrainerCallback] | None = None,
    peft: Any = None,  # a LoraConfig
    **values: Any,
) -> Any:
    """A trainer in float32, with batches of four examples, that keeps all its checkpoints; with `peft`, of adapters."""
    kind = kind or encoder.kind  # type: ignore[union-attr]
    trainer, arguments = CLASSES[kind]
    values = {
        "output_dir": str(output),
        "precision": "float32",
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "warmup_steps": 0,
        **({"both_orders": False} if kind == "cross-encoder" else {}),
        # with a dev set, a checkpoint comes with each evaluation
        **({"save_strategy": "no"} if dev is None else {}),
        "save_total_limit": None,
        "disable_tqdm": True,
        **values,
    }
    adapters = peft and peft_config(encoder.model, kind, peft)  # type: ignore[union-attr, arg-type]
    return base(trainer)(encoder, arguments(**values), train, dev, callbacks=callbacks, peft_config=adapters)


def weights(trainer: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def without_dropout(encoder: Encoder) -> Encoder:
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return encoder


def curve_of(trainer: Any, metric: str = "eval_spearman") -> dict[int, float]:
    """What a trainer measured, by the step."""
    return {entry["step"]: entry[metric] for entry in trainer.state.log_history if metric in entry}


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))


class At(TrainerCallback):
    """Do something just before a step."""

    def __init__(self, step: int, action: Callable[[torch.nn.Module], None]) -> None:
        self.step = step
        self.action = action

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step + 1 == self.step:
            self.action(kwargs["model"])


class Gradients(TrainerCallback):
    """The gradients of each step."""

    def __init__(self) -> None:
        self.found: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.found.append({name: weight.grad.clone() for name, weight in kwargs["model"].named_parameters()})


class Killed(BaseException):
    """As a kill: nothing in a trainer catches it."""


def kill(model: torch.nn.Module) -> None:
    raise Killed


def recording(seen: list[list[float]]) -> Callable[[type], type]:
    """A trainer that notes the labels of each batch; they tell the examples apart."""

    def derive(base: type) -> type:
        class Recording(base):  # type: ignore[misc]
            def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
                seen.append(inputs["labels"].tolist())
                return super().compute_loss(model, inputs, *args, **kwargs)

        return Recording

    return derive
