"""What makes a GPU wait: values that a training step reads from its device. A CPU counts them here."""

from __future__ import annotations

import math
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainings import KINDS, labelled, load, trainer_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import TrainerCallback

from te_trainer.losses import cosine_mse
from te_trainer.models.collation import pad
from te_trainer.models.packed import AttentionBackend, choose_backend, to_device, use_backend
from te_trainer.models.packed.when_to_pack import PACKED_ON_GPU
from te_trainer.models.tokens import Tokens
from te_trainer.trainers import computation
from te_trainer.trainers.callbacks import StopOnNaN
from te_trainer.trainers.official_adamw import OfficialEpsilon


class Reads(TorchDispatchMode):
    """The lines that read a value of a tensor, while `active`."""

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.lines: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.active and function is torch.ops.aten._local_scalar_dense.default:
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            self.lines.append(f"{frames[-2].filename}:{frames[-2].lineno} {frames[-2].line}")
        return function(*args, **(kwargs or {}))


class FromTo(TrainerCallback):
    """Counts reads from the end of the first step to the end of the last, all in one epoch."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.reads.active = state.global_step < state.max_steps


class Devices(TorchDispatchMode):
    """The lines that compute with, or copy, tensors of the CPU for those of another device; batches are not meant."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        frame = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename][-2]
        if len({tensor.device for tensor in tensors}) > 1 and not frame.filename.endswith("packed/transfer.py"):
            self.lines.append(f"{function} at {frame.filename}:{frame.lineno} {frame.line}")
        return result


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        (AttentionBackend(), torch.float32),
        (PACKED_ON_GPU, torch.float32),
        (PACKED_ON_GPU, torch.bfloat16),  # flash attention
    ],
)
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_step_on_a_device_takes_nothing_from_the_cpu(
    name: str, backend: AttentionBackend, dtype: torch.dtype, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's device without values, which refuses to be read."""
    # it knows no autocast
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    device = torch.device("meta")
    encoder: Any = load("bi-encoder", models[name])
    encoder.model.to(device=device, dtype=dtype).train()
    tokens = Tokens.of_rows({"input_ids": [[2, 7, 8, 9, 3], [2, 7, 3], [2, 8, 3], [2, 3]]})
    watched = StopOnNaN()
    with (
        use_backend(encoder.model, replace(backend, unread_masks=True), training=True),
        Devices() as devices,
    ):
        inputs = to_device({**pad(encoder.tokenizer, tokens), "labels": torch.ones(2)}, device)
        one, two = encoder.embed(inputs["input_ids"], inputs["attention_mask"]).chunk(2)
        loss = cosine_mse(one, two, inputs["labels"]) * (2 / 4)
        loss.backward()
        watched.watch(loss, 1)
        torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), 1.0)
    assert devices.lines == []


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_nothing_back(
    kind: str, accumulation: int, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = partial(choose_backend, device=torch.device("cuda"), precision="float32")
    monkeypatch.setattr(computation, "choose_backend", lambda model, length, *_, **__: on_gpu(model, length))
    reads = Reads()
    values = {"official_adamw": True, "max_steps": 3, "gradient_accumulation_steps": accumulation}
    trainer = trainer_of(
        load(kind, models["roberta"]), tmp_path, labelled(), callbacks=[FromTo(reads)], logging_strategy="no", **values
    )
    assert trainer.args.optim == "adamw_torch_fused"  # keeps its steps on the device
    trainer.remove_callback(StopOnNaN)  # which reads each step on a CPU alone
    with reads:
        trainer.train()
    assert trainer.state.global_step == 3
    assert reads.lines == []


def test_one_process_counts_its_pairs_without_the_device(models: dict[str, str], tmp_path: Path) -> None:
    seen: list[Any] = []

    def keeping(made: type) -> type:
        class Keeps(made):  # type: ignore[misc]
            def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
                seen.append(num_items_in_batch)
                loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
                return loss

        return Keeps

    values = {"gradient_accumulation_steps": 3, "num_train_epochs": 1}
    trainer_of(load("cross-encoder", models["bert"]), tmp_path, labelled(), base=keeping, **values).train()
    assert all(isinstance(pairs, int) for pairs in seen)
    assert seen == [12] * 3 + [8] * 2


# ---------------------------------------------------------------- the official epsilon, whose steps are counted


def epsilon(step: int) -> float:
    return 1e-6 / math.sqrt(1 - 0.999**step)


class Epsilons(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append([group["eps"] for group in kwargs["optimizer"].param_groups])


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_a_training_that_resumes_counts_on(optim: str, models: dict[str, str], tmp_path: Path) -> None:
    values = {"official_adamw": True, "optim": optim, "max_steps": 5, "save_strategy": "steps", "save_steps": 3}
    for checkpoint, steps in ((None, range(1, 6)), (str(tmp_path / "checkpoint-3"), range(4, 6))):
        epsilons = Epsilons()
        encoder = load("bi-encoder", models["bert"])
        trainer = trainer_of(encoder, tmp_path, labelled(), callbacks=[epsilons], **values)
        trainer.train(resume_from_checkpoint=checkpoint)
        assert epsilons.seen == [pytest.approx([epsilon(step)] * 2) for step in steps]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_gradient_scaler_skips_is_not_counted(fused: bool) -> None:
    weight, other = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": [weight]}, {"params": [other]}], fused=fused)
    OfficialEpsilon().follow(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    made = 0
    for finite in (True, False, True, False, False, True, True):
        optimizer.zero_grad()
        scaler.scale((weight + other).sum() * (1 if finite else torch.inf)).backward()
        scaler.step(optimizer)
        scaler.update()
        made += finite
        assert int(optimizer.state[weight]["step"]) == made
        if finite:
            assert [group["eps"] for group in optimizer.param_groups] == pytest.approx([epsilon(made)] * 2)
    assert made == 4


def test_groups_that_step_one_by_one_count_for_themselves() -> None:
    """As under DeepSpeed, which loads into the state in place."""
    weights = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], fused=True)
    official = OfficialEpsilon()
    official.follow(optimizer)
    groups = optimizer.param_groups

    def step() -> list[float]:
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups
        return [group["eps"] for group in groups]

    for weight in weights:
        weight.grad = torch.ones(4)
    assert [step() for _ in range(3)] == [pytest.approx([epsilon(number)] * 2) for number in (1, 2, 3)]
    for weight in weights:
        optimizer.state[weight]["step"].data.copy_(torch.tensor(70.0))
    official.on_train_begin(None, None, None)  # type: ignore[arg-type]
    assert [step() for _ in range(2)] == [pytest.approx([epsilon(number)] * 2) for number in (71, 72)]
