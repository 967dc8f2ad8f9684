"""When a trainer evaluates and saves, and by which metric it chooses the best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from te_trainer.config.schema import BiEncoderConfig
from te_trainer.errors import InputError
from te_trainer.trainers.arguments import DECIDED_BY_TRAINER, FOLLOWING_METRIC, PairTrainingArguments


def decide_strategies(
    args: PairTrainingArguments, prefixes: Sequence[str] | None, metric: str | None, has_loss: bool
) -> bool:
    """Decide in place when a trainer evaluates and saves, and by which metric it chooses, where `args` leave that open.

    `prefixes` stand in front of the metrics of each evaluation set (None without one); `metric` is None where
    `compute_metrics` names metrics. The result says whether evaluations and checkpoints come after each epoch too.
    """
    evaluation, save = (getattr(value, "value", value) for value in (args.eval_strategy, args.save_strategy))
    if prefixes is None:
        if evaluation not in (None, "no"):
            raise InputError(f"eval_strategy: '{evaluation}' needs an eval_dataset; give one, or set 'no'")
        if args.lr_scheduler_type in FOLLOWING_METRIC:
            name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
            raise InputError(f"lr_scheduler_type: '{name}' follows the metric of an eval_dataset; give one")
        if args.load_best_model_at_end:
            raise InputError("load_best_model_at_end: only an eval_dataset says which is best; give one")
        each_epoch = save is None
        evaluation, args.load_best_model_at_end = "no", False
    else:
        each_epoch = evaluation is None and save in (None, "no", "best")
        evaluation = evaluation or ("epoch" if save == "epoch" else "steps")
    args.eval_strategy, args.save_strategy = evaluation, save or ("steps" if evaluation == "no" else evaluation)
    args.eval_steps = args.eval_steps or BiEncoderConfig.defaults["eval_steps"]
    in_steps = evaluation == args.save_strategy == "steps"
    if args.save_steps is None:
        args.save_steps = args.eval_steps if in_steps else DECIDED_BY_TRAINER["save_steps"]
    if prefixes is not None:
        _decide_metric(args, prefixes, metric, has_loss)
        together = evaluation != "no" and args.save_strategy in ("best", evaluation)
        if args.load_best_model_at_end is None:
            each_saved = together and not (in_steps and args.save_steps != args.eval_steps)
            args.load_best_model_at_end = each_saved and args.metric_for_best_model is not None
        # fractions of a training are no exact numbers; transformers compares them so
        is_multiple = not in_steps or (args.save_steps * 1_000_000) % (args.eval_steps * 1_000_000) == 0
        if args.load_best_model_at_end and not (together and is_multiple):
            raise InputError(
                f"load_best_model_at_end: not every checkpoint has an evaluation (eval_strategy {evaluation}, "
                f"eval_steps {args.eval_steps:g}, save_strategy {args.save_strategy}, save_steps {args.save_steps:g}); "
                "set both to the same"
            )
        if args.metric_for_best_model is None and (args.load_best_model_at_end or args.save_strategy == "best"):
            raise InputError("metric_for_best_model: name the metric of compute_metrics that says which is best")
    return each_epoch


def _decide_metric(args: PairTrainingArguments, prefixes: Sequence[str], metric: str | None, has_loss: bool) -> None:
    scores = [] if args.prediction_loss_only or metric is None else [prefix + metric for prefix in prefixes]
    known = scores + ([f"{prefix}loss" for prefix in prefixes] if has_loss else [])
    if args.prediction_loss_only and not known:
        raise InputError("prediction_loss_only: the labels of an eval_dataset lie outside [-1, 1]; set it to False")
    best = args.metric_for_best_model
    if best is None and (metric is not None or args.prediction_loss_only):
        best = args.metric_for_best_model = known[0]
    elif (
        best is not None
        and args.eval_strategy != "no"
        and best.removeprefix("eval_") not in known
        and (metric is not None or f"_{best}".endswith("_loss"))
    ):
        raise InputError(
            f"metric_for_best_model: '{best}' is not measured; choose one of "
            f"{', '.join(known) or 'those of compute_metrics'} (a loss needs labels in [-1, 1], and not info_nce)"
        )
    if args.greater_is_better is None and best is not None:
        args.greater_is_better = not best.endswith("loss")
    if args.lr_scheduler_type in FOLLOWING_METRIC:
        # these follow the metric, and take less for better where nobody says otherwise
        kwargs: Any = args.lr_scheduler_kwargs
        args.lr_scheduler_kwargs = {"mode": "max" if args.greater_is_better else "min"} | (kwargs or {})
