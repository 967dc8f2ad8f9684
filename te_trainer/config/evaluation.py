"""From the command line of an evaluation to an `EvaluationConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from te_trainer.config.names import check_path
from te_trainer.config.parsing import (
    DDP_TIMEOUT_KEY,
    Form,
    check_ddp_timeout,
    check_positive,
    check_seed_and_loggers,
    listed,
    read,
)
from te_trainer.config.schema import EvaluationConfig, EvaluationDataConfig, Pooling
from te_trainer.errors import InputError


def parse_evaluation(argv: Sequence[str] | None = None) -> EvaluationConfig:
    """Parse a command line.

    Raises:
        InputError: an unknown key (with the nearest known one), a value that cannot be, no model.
    """
    values = read(_form(), argv)
    config = EvaluationConfig(
        models=listed(values["models"]),
        tasks=listed(values["tasks"]),
        data=EvaluationDataConfig(**values["data"]),
        pooling=values["pooling"],
        max_length=values["max_length"],
        compare=values["compare"],
        output_dir=values["output_dir"],
        seed=values["seed"],
        ddp_timeout=values["ddp_timeout"],
    )
    if not config.models:
        raise InputError("models is empty: name at least one model, e.g. --models '[runs/sts/bert/bi-encoder]'")
    unknown = set(config.data.columns) - {"sentence1", "sentence2", "score"}
    if unknown:
        raise InputError(
            f"data.columns: unknown key '{sorted(unknown)[0]}'; it maps sentence1, sentence2 and score to column names"
        )
    check_path(config.output_dir, "output_dir")
    check_seed_and_loggers(config.seed, [])
    check_ddp_timeout(config.ddp_timeout)
    check_positive({"max_length": config.max_length})
    return config


def _form() -> Form:
    return Form(
        prog="evaluate_sts.py",
        description="Scores of bi-encoders, cross-encoders and ensembles on pairs with gold scores.",
        keys=[
            (
                "models",
                list[str] | str,
                [],
                "The models, one or several: a Hub id (owner/name or owner/name@revision), a local folder, "
                "package:folder, or an ensemble of them, written one+two, whose predictions are averaged. Whether a "
                "model is a bi- or a cross-encoder, its checkpoint says.",
            ),
            (
                "tasks",
                list[str] | str,
                [],
                "What they are scored on, one or several: sts12 to sts16, stsb, sickr, qqp, qnli, mrpc; the groups "
                "sts, sts_sickr (with sickr: the paper's seven) and binary; or a file with sentence1, sentence2 and "
                "score. Default: with data.dir every set that lies there, else sts_sickr.",
            ),
            ("pooling", Pooling | None, None, "Of bi-encoders. Default: what the checkpoint says, else cls."),
            (
                "max_length",
                int | None,
                None,
                "Tokens of a sentence, or of a cross-encoder's pair, beyond this are cut. Default: the checkpoint's; "
                "the paper's bi-encoders have 32.",
            ),
            (
                "compare",
                Literal["paper"] | None,
                None,
                "paper sets its figures below each model that is one of its starts, or a run's encoder from such a "
                "start.",
            ),
            ("output_dir", str, "runs/evaluation", "Where everything is written."),
            ("seed", int, 2021, "Of the bootstrap."),
            DDP_TIMEOUT_KEY,
        ],
        sections={"data": EvaluationDataConfig},
        trainings={},
        never_empty=frozenset({"models", "output_dir", "seed"}),
    )
