"""AdamW as the official code has it: that of transformers 4.9, by way of sentence-transformers 2.0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState

from te_trainer.errors import InputError

EPSILON = 1e-6
TORCH_ADAMW = ("adamw_torch", "adamw_torch_fused")  # values of `optim`


def check_official_adamw(optim: str, epsilon: float | None, key: str = "official_adamw") -> None:
    """Refuse another optimiser or epsilon (None where `adam_epsilon` is not set); `key` is what the user set."""
    if optim not in TORCH_ADAMW:
        raise InputError(f"{key}: it is a form of AdamW, and optim is {optim}; leave one of the two out")
    if epsilon not in {None, 1e-8}:
        raise InputError(f"{key}: its epsilon is {EPSILON}, and adam_epsilon is {epsilon}; leave one of the two out")


def refuse_optimizer_of_deepspeed(config: Mapping[str, Any]) -> None:
    """Refuse a configuration of DeepSpeed that replaces torch's AdamW by an optimiser of DeepSpeed."""
    offload = config.get("zero_optimization", {}).get("offload_optimizer", {})
    if "optimizer" in config or offload.get("device", "none") != "none":
        raise InputError(
            "official_adamw: DeepSpeed has an optimiser of its own where its configuration names one or offloads it; "
            "take ZeRO without that, or set official_adamw to false"
        )


class OfficialEpsilon(TrainerCallback):
    """Lets torch's AdamW make the steps that transformers 4.9's made.

    That one added its epsilon to the root of the second moment before the bias correction. In torch's formula this is
    an epsilon of 1e-6 / sqrt(1 - beta2^t) at step t: 3.2e-5 at the first one, where torch has 1e-8 throughout. It also
    decayed weights after a step and not before it, which differs by learning rate times decay (2e-7) of the step.

    Steps are read of the optimiser's state once a training, when a checkpoint is loaded, and counted from there:
    reading them makes a GPU wait.
    """

    def __init__(self) -> None:
        # by a group's first weight: DeepSpeed makes the step of each group by itself, and changes what is in it
        self._done: dict[Tensor, int] = {}

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the epsilon of each step of an optimiser."""
        if not isinstance(optimizer, torch.optim.AdamW):
            raise InputError(f"official_adamw: the optimiser is {type(optimizer).__name__}, and not torch's AdamW")
        optimizer.register_step_pre_hook(self._set_epsilon)
        optimizer.register_load_state_dict_post_hook(self._forget)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # DeepSpeed loads a checkpoint without a call of `load_state_dict`
        self._forget()

    def _forget(self, *_: Any) -> None:
        self._done.clear()

    def _set_epsilon(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # of a fused step under a gradient scaler, the GPU alone knows whether it is skipped
        may_skip = getattr(optimizer, "found_inf", None) is not None
        for group in optimizer.param_groups:
            weights = group["params"]
            if not weights:
                continue
            done = None if may_skip else self._done.get(weights[0])
            if done is None:
                states = (optimizer.state.get(weight, {}) for weight in weights)
                done = next((int(state["step"]) for state in states if "step" in state), 0)
            self._done[weights[0]] = done + 1
            group["eps"] = EPSILON / math.sqrt(1 - group["betas"][1] ** (done + 1))
