"""Training arguments of both trainers: `transformers.TrainingArguments` with the paper's values as defaults."""

from __future__ import annotations

import os
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from accelerate import PartialState
from transformers import TrainingArguments

from te_trainer.config.defaults import TRAINER_DEFAULTS, paper_arguments
from te_trainer.distributed import device_type
from te_trainer.errors import InputError
from te_trainer.models.precision import Precision, resolve_precision
from te_trainer.trainers.official_adamw import check_official_adamw

CHOICES = {
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "train_sampling_strategy": ("auto", "random", "group_by_length"),
}
# What a trainer decides if it is left out: it knows whether there is an eval_dataset. Until then, `TrainingArguments`
# checks these.
LEFT_OPEN = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 500, "load_best_model_at_end": False}
BI, CROSS = paper_arguments("bi-encoder", "sts"), paper_arguments("cross-encoder", "sts")


@dataclass
class PairTrainingArguments(TrainingArguments):
    """What both trainers share.

    With an `eval_dataset`, evaluation comes every `eval_steps` steps and at the end of each epoch, a checkpoint with
    each, and the best one by `metric_for_best_model` is loaded at the end (the official code's procedure). That is what
    `eval_strategy`, `save_strategy`, `save_steps` and `load_best_model_at_end` mean when they are left out. What is set
    is done: `eval_strategy="steps"` evaluates every `eval_steps` steps and no more, and the best checkpoint is loaded
    by default only where each evaluation has one. Without an `eval_dataset`, a checkpoint comes every 500 steps and at
    the end of each epoch.

    A process trains on one GPU; for several, `accelerate launch` starts several processes.
    """

    eval_strategy: str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "no, steps or epoch; left out, steps and the end of each epoch."}
    )
    save_strategy: str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "no, steps, epoch or best; left out, with each evaluation."}
    )
    save_steps: float | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Steps between two checkpoints; left out, eval_steps, or 500 without evaluation."},
    )
    load_best_model_at_end: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Left out, the best checkpoint is loaded where each evaluation has one."}
    )
    precision: str = field(
        default="auto",
        metadata={
            "help": "auto, float32, bfloat16 or float16: arithmetic of the forward and backward pass. auto takes what "
            "the hardware is fast at. bf16 or fp16, if set, go before it."
        },
    )
    weight_decay: float = field(
        default=BI["weight_decay"], metadata={"help": "AdamW's weight decay, not on biases and norms."}
    )
    official_adamw: bool = field(
        default=False,
        metadata={
            "help": "AdamW as the official code has it (transformers 4.9): an epsilon of 1e-6, added before the bias "
            "correction, which damps early steps. torch's is 1e-8, added after it."
        },
    )
    eval_steps: float | None = field(
        default=TRAINER_DEFAULTS["eval_steps"], metadata={"help": "Steps between two evaluations."}
    )
    per_device_eval_batch_size: int = field(
        default=TRAINER_DEFAULTS["per_device_eval_batch_size"], metadata={"help": "Pairs in a batch of evaluation."}
    )
    save_total_limit: int | None = field(
        default=TRAINER_DEFAULTS["save_total_limit"], metadata={"help": "Checkpoints kept: the best and the last."}
    )
    logging_steps: float = field(
        default=TRAINER_DEFAULTS["logging_steps"], metadata={"help": "Steps between two log entries."}
    )
    logging_nan_inf_filter: bool = field(
        default=TRAINER_DEFAULTS["logging_nan_inf_filter"], metadata={"help": "Hide losses that are not finite."}
    )
    train_sampling_strategy: str = field(
        default="auto",
        metadata={
            "help": "auto, random or group_by_length. auto is random, as in the paper, but on a CPU for models that "
            "compute padding."
        },
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The trainers choose their own columns."})

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            # what transformers would do with its other sampling strategies, the trainers' own samplers do not
            if (value := getattr(self, name)) not in choices:
                raise InputError(f"{name}: '{value}' is none of {', '.join(choices)}")
        device = "cpu" if self.use_cpu else device_type()
        self.use_cpu = device == "cpu"
        if self.use_cpu:
            # TrainingArguments would give the process group of CPUs the default time-out, whatever was asked for
            PartialState(cpu=True, backend=self.ddp_backend, timeout=self.ddp_timeout_delta)
        self.autocast: Precision = "float32"
        if not (self.bf16 or self.fp16):
            precision = resolve_precision(self.precision, device)  # type: ignore[arg-type]
            deepspeed = self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
            if precision == "bfloat16" and deepspeed and os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no":
                # DeepSpeed's own bfloat16 would round the weights; as many bytes hold float32 weights without a copy.
                self.autocast = "bfloat16"
            else:
                self.bf16, self.fp16 = precision == "bfloat16", precision == "float16"
        self._check_with_what_is_left_open()
        if self.official_adamw:
            check_official_adamw(
                str(self.optim.value if isinstance(self.optim, Enum) else self.optim), self.adam_epsilon
            )
        if self.n_gpu > 1:
            # nn.DataParallel would take a batch of the size asked for to each GPU, and one step of them all
            self._n_gpu = 1
        if not (self.bf16 or self.fp16):
            # TrainingArguments would take what `accelerate launch --mixed_precision` says, whatever was asked for here.
            self.mixed_precision = "no"

    def _check_with_what_is_left_open(self) -> None:
        """`TrainingArguments.__post_init__`, which knows no value that is left open."""
        names = (*LEFT_OPEN, "metric_for_best_model", "greater_is_better")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        for name, value in LEFT_OPEN.items():
            if given[name] is None:
                setattr(self, name, value)
                # a trainer checks it
                self.load_best_model_at_end = False
        super().__post_init__()
        for name in names:
            if given[name] is None or name == "load_best_model_at_end":
                setattr(self, name, given[name])


AnyArguments = TypeVar("AnyArguments", bound=PairTrainingArguments)


def as_arguments(args: TrainingArguments | None, kind: type[AnyArguments]) -> AnyArguments:
    """A trainer's arguments out of what a user gave.

    Args:
        args: None for the defaults. Plain `TrainingArguments` cannot tell what was set from what was not: all of their
            values are taken as they are (so `eval_strategy="no"` evaluates nothing while it trains, and without `bf16`
            or `fp16` arithmetic is in float32), and what only `kind` has keeps its default.
        kind: the arguments of the trainer.

    Raises:
        InputError: they are those of another trainer.
    """
    if args is None:
        return kind()
    if isinstance(args, kind):
        return args
    if not isinstance(args, TrainingArguments) or isinstance(args, PairTrainingArguments):
        raise InputError(f"args: a {type(args).__name__} where {kind.__name__} are expected")
    ours = {item.name for item in fields(TrainingArguments)}
    for item in fields(args):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if item.name not in ours and getattr(args, item.name) != default:
            raise InputError(f"args: {type(args).__name__}.{item.name} means nothing here; give {kind.__name__}")
    values = {item.name: getattr(args, item.name) for item in fields(TrainingArguments) if item.init}
    if not (args.bf16 or args.fp16):
        values["precision"] = "float32"
    return kind(**values | {"remove_unused_columns": False})


@dataclass
class BiEncoderTrainingArguments(PairTrainingArguments):
    """Arguments of [`BiEncoderTrainer`]; defaults of the paper's cross-to-bi step, STS, base size (Table 16)."""

    learning_rate: float = field(default=BI["learning_rate"], metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(
        default=BI["per_device_train_batch_size"], metadata={"help": "Pairs in a batch, on each device."}
    )
    num_train_epochs: float = field(default=BI["num_train_epochs"], metadata={"help": "Passes over the pool."})
    loss: str = field(
        default="mse",
        metadata={"help": "mse (the paper's, Eq. 3), bce (its ablation, Table 8) or info_nce (Eq. 1, no labels)."},
    )
    temperature: float = field(default=0.05, metadata={"help": "info_nce: what cosines are divided by."})
    both_views: bool = field(
        default=False,
        metadata={"help": "info_nce: both sides of the batch are anchors, and each other's negatives (Mirror-BERT)."},
    )
    mlp_head: bool = field(
        default=False, metadata={"help": "info_nce: train with a linear layer and tanh on [CLS] (SimCSE)."}
    )
    span: int = field(
        default=0, metadata={"help": "info_nce: characters of sentence2 that a mask replaces (Mirror-BERT)."}
    )


@dataclass
class CrossEncoderTrainingArguments(PairTrainingArguments):
    """Arguments of [`CrossEncoderTrainer`]; defaults of the paper's bi-to-cross step, STS (Table 16)."""

    learning_rate: float = field(default=CROSS["learning_rate"], metadata={"help": "Peak learning rate."})
    per_device_train_batch_size: int = field(
        default=CROSS["per_device_train_batch_size"], metadata={"help": "Pairs in a batch, on each device."}
    )
    num_train_epochs: float = field(default=CROSS["num_train_epochs"], metadata={"help": "Passes over the pool."})
    warmup_steps: float = field(
        default=CROSS["warmup_steps"], metadata={"help": "Steps of warm-up; below 1, a share of all steps."}
    )
    loss: str = field(default="bce", metadata={"help": "bce (the paper's, Eq. 2) or mse (its ablation, Table 8)."})
    both_orders: bool = field(
        default=True,
        metadata={"help": "Train on (s1, s2) and (s2, s1), as the official code does for every task except QNLI."},
    )
