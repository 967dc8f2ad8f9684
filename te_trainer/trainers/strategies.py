"""When a trainer evaluates and saves, and by which metric it chooses: what its arguments leave open is decided here."""

from __future__ import annotations

from collections.abc import Sequence

from te_trainer.errors import InputError
from te_trainer.trainers.arguments import PairTrainingArguments


def decide_strategies(
    args: PairTrainingArguments, prefixes: Sequence[str] | None, metric: str | None, with_loss: bool
) -> bool:
    """Fill in what arguments leave open.

    Args:
        args: Changed in place.
        prefixes: What stands in front of the metrics of each evaluation set: nothing for a single one, `NAME_` for each
            of several. None without evaluation sets.
        metric: Name of the metric of each set; None where a function of the user's gives metrics.
        with_loss: Whether each evaluation set has a loss.

    Returns:
        whether evaluations and checkpoints come at the end of each epoch too.

    Raises:
        InputError: what is given does not go together.
    """
    save = args.save_strategy
    if prefixes is None:
        if args.eval_strategy not in (None, "no"):
            raise InputError(
                f"eval_strategy: '{_said(args.eval_strategy)}' needs an eval_dataset; give one, or set 'no'"
            )
        if args.load_best_model_at_end:
            raise InputError("load_best_model_at_end: only an eval_dataset says which is best; give one")
        args.eval_strategy, args.save_strategy = "no", "steps" if save is None else save
        args.save_steps = 500 if args.save_steps is None else args.save_steps
        args.load_best_model_at_end = False
        return save is None
    args.eval_steps = args.eval_steps or 200
    each_epoch = args.eval_strategy is None and save in (
        None,
        "no",
        "best",
    )  # not a set: their enumerations hash otherwise
    if args.eval_strategy is None:
        args.eval_strategy = "epoch" if save == "epoch" else "steps"
    if save is None:
        args.save_strategy = "steps" if args.eval_strategy == "no" else args.eval_strategy
    in_steps = args.eval_strategy == args.save_strategy == "steps"
    if args.save_steps is None:
        args.save_steps = args.eval_steps if in_steps else 500
    _decide_metric(args, prefixes, metric, with_loss)
    _decide_best(args, in_steps)
    return each_epoch


def _decide_metric(args: PairTrainingArguments, prefixes: Sequence[str], metric: str | None, with_loss: bool) -> None:
    known = [] if args.prediction_loss_only or metric is None else [prefix + metric for prefix in prefixes]
    losses = [f"{prefix}loss" for prefix in prefixes] if with_loss else []
    if args.prediction_loss_only and not losses:
        raise InputError("prediction_loss_only: the labels of an eval_dataset lie outside [-1, 1]; set it to False")
    if args.metric_for_best_model is None:
        if not (known or losses) or (metric is None and not args.prediction_loss_only):
            return
        args.metric_for_best_model = (known or losses)[0]
    elif args.eval_strategy != "no":
        name = args.metric_for_best_model.removeprefix("eval_")
        of_losses = name == "loss" or name.endswith("_loss")
        if name not in [*known, *losses] and (metric is not None or of_losses):
            why = (
                "there is no loss on an eval_dataset whose labels lie outside [-1, 1], nor with info_nce; "
                if of_losses and not losses
                else ""
            )
            raise InputError(
                f"metric_for_best_model: '{args.metric_for_best_model}' is not measured; {why}choose one of "
                f"{', '.join([*known, *losses]) or 'those that compute_metrics gives'}"
            )
    if args.greater_is_better is None:
        args.greater_is_better = not args.metric_for_best_model.endswith("loss")


def _decide_best(args: PairTrainingArguments, in_steps: bool) -> None:
    evaluates = args.eval_strategy != "no"
    together = args.save_strategy == "best" or args.save_strategy == args.eval_strategy
    steps = args.save_steps or 0
    if args.load_best_model_at_end is None:
        alike = together and not (in_steps and steps != args.eval_steps)
        args.load_best_model_at_end = evaluates and alike and args.metric_for_best_model is not None
    elif args.load_best_model_at_end:
        if not (evaluates and together):
            raise InputError(
                "load_best_model_at_end: evaluations and checkpoints must come together, but eval_strategy is "
                f"'{_said(args.eval_strategy)}' and save_strategy '{_said(args.save_strategy)}'; set both to the same"
            )
        if in_steps and args.eval_steps and steps % args.eval_steps:
            raise InputError(
                f"load_best_model_at_end: save_steps ({steps:g}) must be a multiple of eval_steps ({args.eval_steps:g})"
            )
    if args.metric_for_best_model is None and (args.load_best_model_at_end or args.save_strategy == "best"):
        raise InputError("metric_for_best_model: name the one among those of compute_metrics that says which is best")


def _said(strategy: object) -> str:
    return str(getattr(strategy, "value", strategy))
