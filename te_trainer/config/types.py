"""The types of keys: what may be chosen, and which values are checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from te_trainer.config.names import LONGEST_FILE_NAME, can_be_looked_up, expand_home

Kind = Literal["bi-encoder", "cross-encoder"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Task = Literal["sts", "binary"]
Size = Literal["base", "large"]
Pooling = Literal["cls", "mean", "last"]
Students = Literal["both", "bi-encoder"]
Combine = Literal["mean", "weighted", "rank"]
Method = Literal["simcse", "mirror_bert"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16"]
SamplingStrategy = Literal["auto", "random", "group_by_length"]
CandidateSource = Literal["neighbours", "bm25", "document", "random"]
Logger = Literal["tensorboard", "trackio", "wandb"]
SENTENCE_COLUMNS = ("sentence1", "sentence2")  # of every pair of sentences


def section_of(kind: str) -> str:
    """The section of a kind of encoder, which is a model's key of that encoder's checkpoint, too."""
    return kind.replace("-", "_")


def _named(name: str) -> str:
    if not name.strip():
        raise ValueError("input should be a name")
    return name


def _source(name: str) -> str:
    if not can_be_looked_up(name):
        raise ValueError(f"input should be a name of which no part has more than {LONGEST_FILE_NAME} bytes")
    return expand_home(name)


def _one_of(*names: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"input should be one of {', '.join(names)}")
        return name

    return AfterValidator(check)


def _steps(steps: int) -> int:
    if steps != -1 and steps < 1:
        raise ValueError("input should be a number of steps from 1 on, or -1 for as many as the epochs have")
    return steps


FromZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seconds = Annotated[int, Field(ge=1, lt=2**31)]
# A file, a folder, a repository or the name of a benchmark set.
Source = Annotated[str, AfterValidator(_named), AfterValidator(_source)]
# A file or a folder that is written to, or that a run has written.
LocalPath = Annotated[str, AfterValidator(_named), AfterValidator(expand_home)]
# Keys of TrainingArguments whose wrong values would only be noticed in the middle of a run.
TRAINING_LIMITS: dict[str, Any] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), PositiveInt | None),
    "gradient_accumulation_steps": PositiveInt | None,
    **dict.fromkeys(("learning_rate", "num_train_epochs", "eval_steps", "logging_steps"), PositiveFloat | None),
    **dict.fromkeys(("weight_decay", "max_grad_norm", "neftune_noise_alpha"), FromZero | None),
    **dict.fromkeys(("adam_epsilon", "warmup_steps"), FromZero | None),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), Rate | None),
    **dict.fromkeys(("eval_accumulation_steps", "dataloader_prefetch_factor"), PositiveInt | None),
    "dataloader_num_workers": NonNegativeInt | None,
    "max_steps": Annotated[int, AfterValidator(_steps)] | None,
}
GoldColumns = dict[Annotated[str, _one_of(*SENTENCE_COLUMNS, "score")], Annotated[str, AfterValidator(_named)]]
