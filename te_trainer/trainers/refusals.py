"""What the Trainer offers and pairs with labels have no use for, refused in a sentence instead of ignored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from te_trainer.errors import InputError
from te_trainer.trainers.arguments import PairTrainingArguments

# Arguments of other trainers, and what stands for them here.
ELSEWHERE = {
    "tokenizer": "it is called processing_class",
    "loss": "args.loss names one, and a function of your own is a compute_loss_func",
    "evaluator": "give an eval_dataset, and a metric or compute_metrics",
}


def refuse_keywords(names: Iterable[str]) -> None:
    """Refuse arguments that neither these trainers nor the Trainer have, but sentence-transformers' have or had."""
    for name in names:
        if name in ELSEWHERE:
            raise InputError(f"{name}: there is no such argument here; {ELSEWHERE[name]}")


def refuse_arguments(args: PairTrainingArguments, has_metrics: bool) -> None:
    """Refuse arguments that would do nothing, or something wrong.

    Args:
        has_metrics: Whether the user gave `compute_metrics`.
    """
    if args.label_smoothing_factor:
        raise InputError("label_smoothing_factor: labels are scores here and no classes; smooth the labels themselves")
    if "inputs" in (args.include_for_metrics or []):
        raise InputError(
            "include_for_metrics: 'inputs' is not to be had; predictions come in the order of the eval_dataset, so "
            "that compute_metrics finds the texts there"
        )
    if args.batch_eval_metrics and not has_metrics:
        raise InputError(
            "batch_eval_metrics: a rank correlation is no mean over batches; leave it out, or give compute_metrics"
        )
    if not args.eval_do_concat_batches:
        raise InputError("eval_do_concat_batches: predictions come in the order of the data set; leave it True")
    if args.push_to_hub and args.hub_strategy not in ("end", "every_save"):
        raise InputError("hub_strategy: only encoders are uploaded, no training states; set 'end' or 'every_save'")


def refuse_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Refuse an optimiser that would leave some of what is to be trained as it is.

    Args:
        optimizer: the user's; None for the Trainer's own.
    """
    if optimizer is None:
        return
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    if not any(id(weight) in held for weight in model.parameters() if weight.requires_grad):
        raise InputError(
            "optimizers: the optimiser holds none of the encoder's weights that are trained; make it of those of the "
            "model that you give, or give optimizer_cls_and_kwargs"
        )
