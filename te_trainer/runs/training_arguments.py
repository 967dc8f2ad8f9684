"""A training's arguments: made of a configuration's values, and refused before the work where they cannot be used."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.training_args import ParallelMode
from transformers.utils.import_utils import is_liger_kernel_available

from te_trainer.compat import reset_accelerator_state, restore_linear
from te_trainer.config.schema import ContrastiveConfig, RunConfig
from te_trainer.config.types import Kind
from te_trainer.errors import InputError
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from te_trainer.trainers.dataloaders import workers_asked_for

TRAINERS: dict[Kind, tuple[Any, Any]] = {
    "bi-encoder": (BiEncoderTrainer, BiEncoderTrainingArguments),
    "cross-encoder": (CrossEncoderTrainer, CrossEncoderTrainingArguments),
}


def run_arguments(config: RunConfig | ContrastiveConfig) -> dict[str, Any]:
    """Keyword arguments of the training arguments that stand at the top of a run's configuration."""
    return {"report_to": config.report_to or "none", "ddp_timeout": config.ddp_timeout}


def make_arguments(kind: Kind, section: str, values: dict[str, Any]) -> TrainingArguments:
    """The arguments of a training; what they cannot be is an InputError that names the section."""
    with _refusals_as_input_error(section):
        arguments: TrainingArguments = TRAINERS[kind][1](**values)
    return arguments


def check_arguments(kind: Kind, section: str, values: dict[str, Any], ddp_timeout: int) -> None:
    """Refuse what transformers would refuse when a training begins; all processes call it, before the work.

    Args:
        section: Section of the configuration that holds the arguments.
        values: Those of its values that a training gets.
        ddp_timeout: Seconds that processes wait for one another.

    Raises:
        InputError: An argument, an optimiser or a schedule cannot be used.
    """
    own = {"output_dir": "unused", "log_level": "error", "ddp_timeout": ddp_timeout}
    arguments = make_arguments(kind, section, own | values)
    layer: Any = torch.nn.Linear(1, 1)
    options: Any = arguments.lr_scheduler_kwargs
    with _refusals_as_input_error(section):
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, layer)
        if settings.keys() & {"params", "model", "optimizer_dict"}:
            # of methods that look at a model's layers
            optimizer_class, settings = torch.optim.SGD, {"lr": arguments.learning_rate}
        optimizer = optimizer_class(layer.parameters(), **settings)
        no_pairs: Any = [0]
        DataLoader(no_pairs, persistent_workers=arguments.dataloader_persistent_workers, **workers_asked_for(arguments))
        if arguments.deepspeed and "RANK" not in os.environ:
            raise ValueError("deepspeed needs a launcher; start with accelerate launch, or leave it out")
        if arguments.use_liger_kernel and not is_liger_kernel_available():
            raise ImportError("use_liger_kernel needs the package liger-kernel; pip install liger-kernel")
        _check_compile_mode(arguments)
        _check_activation_checkpointing_kwargs(arguments)
        if arguments.fsdp and arguments.parallel_mode is not ParallelMode.DISTRIBUTED:
            raise ValueError("fsdp needs several processes; start them with accelerate launch, or leave it out")
    with _refusals_as_input_error(f"{section}.lr_scheduler_kwargs"):
        scheduler = get_scheduler(arguments.lr_scheduler_type, optimizer, 1, 3, scheduler_specific_kwargs=options)
        if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            # each phase of a schedule has options of its own
            for step, rate in product(range(4), scheduler.lr_lambdas):
                rate(step)
    release_engine()


def check_checkpointing(model: PreTrainedModel, name: str, section: str, values: dict[str, Any]) -> None:
    """Refuse activation checkpointing of a model that has none; `name` is the checkpoint's."""
    keys = ("activation_checkpointing", "gradient_checkpointing")  # the older one counts where the first is not given
    key = next((key for key in keys if values.get(key) is not None), None)
    if key and values[key] and not model.supports_gradient_checkpointing:
        raise InputError(
            f"{section}.{key}: a {type(model).__name__}, as of model {name}, cannot compute its activations again; "
            "leave the key out, and lower per_device_train_batch_size where memory is short"
        )


def release_engine() -> None:
    """Release what a Trainer leaves behind in accelerate, transformers and DeepSpeed.

    As long as it is there, `from_pretrained` under ZeRO-3 gives empty weights, a second Trainer is refused, and linear
    layers of models that are not trained compute as ZeRO-3's do.
    """
    gc.collect()
    reset_accelerator_state()
    unset_hf_deepspeed_config()
    restore_linear()


def _check_compile_mode(arguments: TrainingArguments) -> None:
    mode = arguments.torch_compile_mode
    if mode and arguments.torch_compile_backend == "inductor":
        import torch._inductor  # takes seconds

        if mode not in (modes := torch._inductor.list_mode_options()):
            raise ValueError(f"torch_compile_mode '{mode}' is none of {', '.join(modes)}")


def _check_activation_checkpointing_kwargs(arguments: TrainingArguments) -> None:
    known = [
        name for name, value in inspect.signature(checkpoint).parameters.items() if value.kind is value.KEYWORD_ONLY
    ]
    known.append("preserve_rng_state")
    if unknown := [key for key in arguments.activation_checkpointing_kwargs or {} if key not in known]:
        raise ValueError(f"activation_checkpointing_kwargs: '{unknown[0]}' is none of {', '.join(known)}")


@contextlib.contextmanager
def _refusals_as_input_error(section: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, ImportError, OSError, ArithmeticError) as error:
        sentence = " ".join(str(error).split())
        raise InputError(f"{section}: transformers refuses its arguments: {sentence}") from None
