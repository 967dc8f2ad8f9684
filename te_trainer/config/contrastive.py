"""From the command line of contrastive training to a `ContrastiveConfig`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from te_trainer.config.defaults import DDP_TIMEOUT, TRAINER_DEFAULTS, contrastive_arguments
from te_trainer.config.names import check_path
from te_trainer.config.parsing import (
    DDP_TIMEOUT_KEY,
    Form,
    Key,
    TrainingSection,
    check_ddp_timeout,
    check_positive,
    check_seed_and_loggers,
    given,
    listed,
    read,
)
from te_trainer.config.schema import ContrastiveConfig, ContrastiveDataConfig, Method, Pooling
from te_trainer.errors import InputError

OWN_KEYS: list[Key] = [
    (
        "method",
        Method,
        "simcse",
        "simcse takes two passes with dropout for two views of a sentence (Gao et al. 2021); mirror_bert masks a span "
        "of one view's text as well (Liu et al. 2021). It gives the defaults of the other keys.",
    ),
    ("temperature", float, 0.05, "What cosines are divided by; mirror_bert: 0.04."),
    ("span", int, 0, "Characters of one view that a mask token replaces; mirror_bert: 5."),
    (
        "mlp_head",
        bool,
        True,
        "Train with a linear layer and tanh on [CLS], which is thrown away afterwards; mirror_bert: False.",
    ),
    (
        "both_views",
        bool,
        False,
        "Both views are anchors, and negatives of the views on their own side; mirror_bert: True.",
    ),
    ("pooling", Pooling, "cls", "How a sentence's token vectors become one."),
    ("max_length", int, 32, "Tokens of a sentence beyond this are cut; mirror_bert: 50."),
    ("prompt", str, None, "Text in front of every sentence, for PLMs that want one."),
    (
        "precision",
        Literal["auto", "float32", "bfloat16", "float16"],
        "auto",
        "Arithmetic of training; auto takes what the hardware is fast at.",
    ),
]

DEV_CHOOSES = "the dev set chooses the checkpoint by Spearman's correlation; without data.dev the last one is kept"

MANAGED = {
    "save_steps": "checkpoints come every eval_steps",
    "save_strategy": "checkpoints come every eval_steps",
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), DEV_CHOOSES),
    "push_to_hub": "the run does not publish; `hf upload OWNER/NAME OUTPUT_DIR/bi-encoder` does",
}


def parse_contrastive(argv: Sequence[str] | None = None) -> ContrastiveConfig:
    """Parse a command line.

    Raises:
        InputError: an unknown key (with the nearest known one), a value that cannot be, a missing model or source.
    """
    config = _config(read(_form(), argv))
    if not config.model:
        raise InputError("model is empty: name a plain PLM, e.g. --model bert-base-uncased")
    check_path(config.output_dir, "output_dir")
    if not config.data.sentences:
        raise InputError("data.sentences is empty: name at least one source, e.g. --data.sentences '[sentences.txt]'")
    return config


def parse_step0(path: str) -> ContrastiveConfig:
    """Read the file that a run's `distillation.step0` names.

    Only what the run itself does not decide is kept: the sources of sentences (none for the run's own pool) and the
    section `contrastive`.

    Raises:
        InputError: as for a command line.
    """
    try:
        config = _config(read(_form(), ["--config", path]))
    except InputError as error:
        raise InputError(f"distillation.step0: {str(error).removeprefix('--config: ')}") from None
    data = replace(config.data, dev=None, test=[])
    return replace(config, model="", data=data, report_to=[], output_dir="", seed=0, ddp_timeout=DDP_TIMEOUT)


def _form() -> Form:
    defaults = contrastive_arguments("simcse")
    return Form(
        prog="contrastive.py",
        description="From a plain PLM and sentences to a bi-encoder, by SimCSE or Mirror-BERT.",
        keys=[
            (
                "model",
                str,
                "",
                "The plain PLM: a Hub id (owner/name or owner/name@revision), a local folder, or package:folder.",
            ),
            ("output_dir", str, "runs/contrastive", "Where everything is written."),
            ("seed", int, 2021, "Seed of everything random."),
            ("report_to", list[str] | str, [], "Loggers: tensorboard, wandb, trackio."),
            DDP_TIMEOUT_KEY,
        ],
        sections={"data": ContrastiveDataConfig},
        trainings={
            "contrastive": TrainingSection(
                title="the bi-encoder",
                own=OWN_KEYS,
                defaults=TRAINER_DEFAULTS | defaults,
                origin=dict.fromkeys(defaults, " (SimCSE's, for BERT-base)"),
                managed=MANAGED,
            )
        },
        never_empty=frozenset({"model", "output_dir", "seed", "data.sentences"}),
    )


def _config(values: dict[str, Any]) -> ContrastiveConfig:
    for key in ("sentences", "test"):
        values["data"][key] = listed(values["data"][key])
    config = ContrastiveConfig(
        model=values["model"],
        data=ContrastiveDataConfig(**values["data"]),
        contrastive=given(values["contrastive"]),
        report_to=listed(values["report_to"]),
        output_dir=values["output_dir"],
        seed=values["seed"],
        ddp_timeout=values["ddp_timeout"],
    )
    _check(config)
    return config


def _check(config: ContrastiveConfig) -> None:
    """Refuse what each value alone allows and all of them together do not."""
    unknown = set(config.data.columns) - {"sentence1", "sentence2", "score"}
    if unknown:
        raise InputError(
            f"data.columns: unknown key '{sorted(unknown)[0]}'; it maps sentence1, sentence2 and score to column names"
        )
    check_seed_and_loggers(config.seed, config.report_to)
    check_ddp_timeout(config.ddp_timeout)
    section = contrastive_arguments(config.contrastive.get("method", "simcse")) | config.contrastive
    check_positive(
        {"data.max_sentences": config.data.max_sentences, "contrastive.max_length": section["max_length"]},
    )
    if not 0 < section["temperature"] < math.inf:
        raise InputError(f"contrastive.temperature: expected a number above 0, got {section['temperature']}")
    if section["span"] < 0:
        raise InputError(f"contrastive.span: expected a number of 0 or more, got {section['span']}")
    if section["mlp_head"] and section["pooling"] != "cls":
        raise InputError(
            f"contrastive.mlp_head: the head stands on [CLS], but contrastive.pooling is {section['pooling']}; set "
            "mlp_head to false, or pooling to cls"
        )
