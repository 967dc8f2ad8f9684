"""Training arguments of both trainers: `transformers.TrainingArguments` with the paper's values as defaults."""

from __future__ import annotations

import os
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, get_args

from accelerate import PartialState
from transformers import SchedulerType, TrainingArguments

from te_trainer.compat import name_barriers_no_device
from te_trainer.config.schema import BiEncoderConfig, ContrastiveTrainingConfig, CrossEncoderConfig, StudentConfig
from te_trainer.config.types import PrecisionChoice, SamplingStrategy
from te_trainer.distributed import device_type, prepare_for_deepspeed
from te_trainer.errors import InputError
from te_trainer.models.precision import Precision, resolve_precision, tf32
from te_trainer.trainers.official_adamw import check_official_adamw

# All other values of these arguments are refused.
USABLE_VALUES: dict[str, tuple[Any, ...]] = {
    "precision": get_args(PrecisionChoice),
    # the trainers' own samplers know no other strategy
    "train_sampling_strategy": get_args(SamplingStrategy),
    # labels are no classes
    "label_smoothing_factor": (0.0,),
    # predictions come back in the order of the pairs
    "eval_do_concat_batches": (True,),
    # the weights would stay rounded
    "bf16_full_eval": (False,),
    "fp16_full_eval": (False,),
    # pairs are divided among processes, and no text among them
    "parallelism_config": (None,),
    # encoders are uploaded, and no training states
    "hub_strategy": ("end", "every_save"),
}
# Where these are left out, a trainer decides them, because it knows whether there is an eval_dataset; until then,
# `TrainingArguments` checks these values.
DECIDED_BY_TRAINER: dict[str, Any] = {
    "eval_strategy": "no",
    "save_strategy": "steps",
    "save_steps": 500,
    "load_best_model_at_end": False,
}
FOLLOWING_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
BI, CROSS = BiEncoderConfig.defaults, CrossEncoderConfig.defaults


def argument(default: Any, help: str, **parsing: Any) -> Any:
    """A field of a dataclass of arguments; `parsing` is what `HfArgumentParser` passes on to `argparse`."""
    return field(default=default, metadata={"help": help, **parsing})


@dataclass
class PairTrainingArguments(TrainingArguments):
    """What both trainers share.

    With an `eval_dataset`, evaluation comes every `eval_steps` steps and at the end of each epoch, a checkpoint with
    each, and the best one by `metric_for_best_model` is loaded at the end (the official code's procedure). That is what
    `eval_strategy`, `save_strategy`, `save_steps` and `load_best_model_at_end` mean when they are left out. Values that
    are set are taken as they are: `eval_strategy="steps"` evaluates every `eval_steps` steps and no more, and the best
    checkpoint is loaded by default only where each evaluation has one. Without an `eval_dataset`, a checkpoint comes
    every 500 steps and at the end of each epoch.

    A process trains on one GPU; for several, `accelerate launch` starts several processes.
    """

    eval_strategy: str | None = argument(None, "no, steps or epoch; left out, steps and the end of each epoch.")  # type: ignore[assignment]
    save_strategy: str | None = argument(None, "no, steps, epoch or best; left out, with each evaluation.")  # type: ignore[assignment]
    save_steps: float | None = argument(  # type: ignore[assignment]
        None, "Steps between two checkpoints; left out, eval_steps, or 500 without evaluation."
    )
    load_best_model_at_end: bool | None = argument(  # type: ignore[assignment]
        None, "Left out, the best checkpoint is loaded where each evaluation has one.", nargs="?", const=True
    )
    precision: str = argument(
        "auto",
        "auto, float32, bfloat16 or float16: arithmetic of the forward and backward pass. auto takes what the hardware "
        "is fast at. bf16 or fp16, if set, go before it.",
    )
    attn_implementation: str | None = argument(
        StudentConfig.attn_implementation,
        "Attention, as transformers names it: sdpa, eager, flash_attention_2, ... Left out, the encoder's, or the "
        "fastest that is known. Flash attention is not used in float32.",
    )
    weight_decay: float = argument(BI["weight_decay"], "AdamW's weight decay, not on biases and norms.")
    official_adamw: bool = argument(
        StudentConfig.official_adamw,
        "AdamW as the official code has it (transformers 4.9): an epsilon of 1e-6, added before the bias correction, "
        "which damps early steps. torch's is 1e-8, added after it.",
    )
    eval_steps: float | None = argument(BI["eval_steps"], "Steps between two evaluations.")
    per_device_eval_batch_size: int = argument(BI["per_device_eval_batch_size"], "Pairs in a batch of evaluation.")
    save_total_limit: int | None = argument(2, "Checkpoints kept: the best and the last.")
    logging_steps: float = argument(BI["logging_steps"], "Steps between two log entries.")
    logging_nan_inf_filter: bool = argument(BI["logging_nan_inf_filter"], "Hide losses that are not finite.")
    train_sampling_strategy: str = argument(
        StudentConfig.train_sampling_strategy,
        "random (the paper's), group_by_length, or auto, which is random, but group_by_length on a CPU for models that "
        "compute padding: all but BERT and its relatives, and those with a max_length above 128.",
    )
    remove_unused_columns: bool = argument(False, "The trainers choose their own columns.")

    def __post_init__(self) -> None:
        for name, usable in USABLE_VALUES.items():
            if (value := getattr(self, name)) not in usable:
                raise InputError(f"{name}: '{value}' cannot be used here, only {', '.join(map(str, usable))}")
        if "inputs" in (self.include_for_metrics or []):
            raise InputError("include_for_metrics: 'inputs' cannot be had; predictions are in the eval_dataset's order")
        device = "cpu" if self.use_cpu else device_type()
        self.use_cpu = device == "cpu"
        prepare_for_deepspeed()
        if self.use_cpu:
            name_barriers_no_device()
            # TrainingArguments would give the process group of CPUs the default time-out, whatever ddp_timeout is
            PartialState(cpu=True, backend=self.ddp_backend, timeout=self.ddp_timeout_delta)
        self.autocast: Precision = "float32"
        told_float16 = self.fp16 or os.environ.get("ACCELERATE_MIXED_PRECISION") == "fp16"
        if not (self.bf16 or self.fp16):
            precision = resolve_precision(self.precision, device)  # type: ignore[arg-type]
            deepspeed = self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
            if deepspeed and os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no":
                if self.precision == "float16":
                    raise InputError(
                        "precision: float16 does not go with DeepSpeed, which clips gradients before it takes their "
                        "scale away; take bfloat16 or float32"
                    )
                # DeepSpeed's own bfloat16 would round the weights; as many bytes hold float32 weights without a copy.
                self.autocast = "float32" if precision == "float16" else precision
            else:
                self.bf16, self.fp16 = precision == "bfloat16", precision == "float16"
        if self.fp16 and (self.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"):
            if told_float16 or self.precision == "float16":
                raise InputError(
                    "precision: float16 does not go with FSDP, under which a training in it cannot be continued; take "
                    "bfloat16 or float32"
                )
            self.fp16 = False
        if self.use_cpu and self.arithmetic == "float16":
            # accelerate would leave it out without a word
            raise InputError("precision: float16 is for trainings on a GPU; on a CPU take bfloat16 or float32")
        undecided = (*DECIDED_BY_TRAINER, "metric_for_best_model", "greater_is_better")
        as_set = {name: getattr(self, name) for name in undecided}
        follows_metric = self.lr_scheduler_type in FOLLOWING_METRIC
        for name, value in DECIDED_BY_TRAINER.items():
            if as_set[name] is None:
                setattr(self, name, "steps" if name == "eval_strategy" and follows_metric else value)
                # TrainingArguments would compare it with strategies that are not decided
                self.load_best_model_at_end = False
        if self.tf32 is None and (self.torch_compile or self.torch_compile_backend or self.torch_compile_mode):
            # TrainingArguments would turn it on
            self.tf32 = False
        # scores of the same process are float32: TF32 is for `train` alone
        with tf32(None):
            super().__post_init__()  # type: ignore[no-untyped-call,unused-ignore]
        if self.autocast == "bfloat16":
            # DeepSpeed ends every other autocast before a model on a GPU; gradients are still exchanged in float32
            plugin: Any = self.deepspeed_plugin
            section: dict[str, Any] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
            plugin.hf_ds_config.config.setdefault("torch_autocast", section)
        for name, value in as_set.items():
            if value is None or name == "load_best_model_at_end":
                setattr(self, name, value)
        if self.official_adamw:
            check_official_adamw(str(getattr(self.optim, "value", self.optim)), self.adam_epsilon)
        if self.n_gpu > 1:
            # nn.DataParallel would give a whole batch to each GPU, and make one step of them all
            self._n_gpu = 1
        if not (self.bf16 or self.fp16):
            # TrainingArguments would take what `accelerate launch --mixed_precision` says instead
            self.mixed_precision = "no"

    @property
    def arithmetic(self) -> Precision:
        """Of the forward and backward pass, whoever sees to it."""
        return "bfloat16" if self.bf16 else "float16" if self.fp16 else self.autocast


AnyArguments = TypeVar("AnyArguments", bound=PairTrainingArguments)


@dataclass
class BiEncoderTrainingArguments(PairTrainingArguments):
    """Arguments of [`BiEncoderTrainer`]; defaults of the paper's cross-to-bi step, STS, base size (Table 16)."""

    learning_rate: float = argument(BI["learning_rate"], "Peak learning rate.")
    per_device_train_batch_size: int = argument(BI["per_device_train_batch_size"], "Pairs in a batch, on each device.")
    num_train_epochs: float = argument(BI["num_train_epochs"], "Passes over the pool.")
    loss: str = argument(
        BiEncoderConfig.loss,
        "mse (the paper's, Eq. 3), bce (its ablation, Table 8), cosent (order alone) or info_nce (Eq. 1, no labels).",
    )
    temperature: float = argument(ContrastiveTrainingConfig.temperature, "info_nce: what cosines are divided by.")
    both_views: bool = argument(
        False, "info_nce: both sides of the batch are anchors, and each other's negatives (Mirror-BERT)."
    )
    mlp_head: bool = argument(False, "info_nce: train with a linear layer and tanh on [CLS] (SimCSE).")
    span: int = argument(0, "info_nce: characters of sentence2 that a mask replaces (Mirror-BERT).")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise InputError(f"temperature: {self.temperature:g} is not above 0; 0.05 is SimCSE's")
        if self.span < 0:
            raise InputError(f"span: {self.span} is below 0; 0 masks nothing")
        for name in ("both_views", "mlp_head", "span"):
            if getattr(self, name) and self.loss != "info_nce":
                raise InputError(f"{name}: belongs to the loss info_nce, and loss is {self.loss}; leave it out")


@dataclass
class CrossEncoderTrainingArguments(PairTrainingArguments):
    """Arguments of [`CrossEncoderTrainer`]; defaults of the paper's bi-to-cross step, STS (Table 16)."""

    learning_rate: float = argument(CROSS["learning_rate"], "Peak learning rate.")
    per_device_train_batch_size: int = argument(
        CROSS["per_device_train_batch_size"], "Pairs in a batch, on each device."
    )
    num_train_epochs: float = argument(CROSS["num_train_epochs"], "Passes over the pool.")
    warmup_steps: float = argument(CROSS["warmup_steps"], "Steps of warm-up; below 1, a share of all steps.")
    loss: str = argument(CrossEncoderConfig.loss, "bce (the paper's, Eq. 2) or mse (its ablation, Table 8).")
    both_orders: bool = argument(
        CrossEncoderConfig.both_orders,
        "Train on (s1, s2) and (s2, s1), as the official code does for every task except QNLI.",
    )


def as_arguments(args: TrainingArguments | None, kind: type[AnyArguments]) -> AnyArguments:
    """A trainer's arguments. Plain `TrainingArguments` cannot tell which values were set: all are taken as they are."""
    if args is None or isinstance(args, kind):
        return kind() if args is None else args
    if not isinstance(args, TrainingArguments) or isinstance(args, PairTrainingArguments):
        raise InputError(f"args: a {type(args).__name__} where {kind.__name__} are expected")
    plain = {item.name: item.init for item in fields(TrainingArguments)}
    for item in fields(args):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if item.name not in plain and getattr(args, item.name) != default:
            raise InputError(f"args: {type(args).__name__}.{item.name} means nothing here; give {kind.__name__}")
    values = {name: getattr(args, name) for name, init in plain.items() if init}
    precision = {} if args.bf16 or args.fp16 else {"precision": "float32"}
    return kind(**values | precision | {"remove_unused_columns": False})
