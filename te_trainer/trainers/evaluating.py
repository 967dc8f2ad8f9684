"""Evaluation of pairs, whenever they are given: their rows, scores in their order, and metrics of these."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from te_trainer.errors import DivergedError, InputError
from te_trainer.metrics import Metric
from te_trainer.trainers.callbacks import LOWER
from te_trainer.trainers.card import SPEED
from te_trainer.trainers.datasets import PairCheck, as_dataset
from te_trainer.trainers.publishing import PublishingTrainer
from te_trainer.trainers.tokenise import column, is_tokenised


class EvaluatedRows(NamedTuple):
    """What an evaluation goes through.

    Args:
        order: Where in its rows each row of the data set is that was given, shape (n,); None for the same order.
        has_loss: Whether the loss is measured.
        for_prediction: Whether it is `predict` that asks.
    """

    order: np.ndarray | None
    has_loss: bool
    for_prediction: bool


class EvaluatingTrainer(PublishingTrainer):
    """A Trainer whose evaluation sets are pairs of sentences.

    Beside public methods it overrides `_get_eval_sampler`: evaluation goes through its rows in their order, whatever a
    training does.
    """

    args: Any
    metric: Metric
    score_name: ClassVar[str]  # of the scores among what a loss function is given
    _given_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None
    _evaluated: EvaluatedRows | None = None

    def tokenise(self, pairs: Any, check: PairCheck, training: bool) -> Any:
        """The rows that batches are made of."""
        raise NotImplementedError

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """What the encoder says of each pair of a batch, higher for more similar; float32, shape (n,)."""
        raise NotImplementedError

    def has_loss(self, rows: Dataset) -> bool:
        """Whether the loss can be measured on evaluation rows: gold scores may be on a scale of their own."""
        raise NotImplementedError

    @property
    def eval_dataset(self) -> Any:
        """Rows of the evaluation set, or of each of several; pairs that are assigned are tokenised."""
        return self._eval_dataset

    @eval_dataset.setter
    def eval_dataset(self, pairs: Any) -> None:
        if isinstance(pairs, Mapping):
            pairs = {
                str(name): self._eval_rows(rows, f"eval_dataset['{name}']") for name, rows in pairs.items()
            } or None
        elif pairs is not None:
            pairs = self._eval_rows(pairs, "eval_dataset")
        self._eval_dataset = pairs
        # loaders of the set before, which the Trainer keeps if their workers are persistent
        vars(self).pop("_eval_dataloaders", None)

    @property
    def compute_metrics(self) -> Any:
        """What the Trainer calls with scores and labels: the user's function, or `metric` where there is none."""
        return self._given_metrics if self.args.batch_eval_metrics else self._metrics

    @compute_metrics.setter
    def compute_metrics(self, function: Callable[[EvalPrediction], dict[str, float]] | None) -> None:
        self._given_metrics = function

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Batches of pairs, or of the evaluation set of a name, by length.

        Raises:
            InputError: there is no set of this name, or rows of it cannot be meant.
        """
        if isinstance(eval_dataset, str) and not (
            isinstance(self.eval_dataset, dict) and eval_dataset in self.eval_dataset
        ):
            known = ", ".join(self.eval_dataset) if isinstance(self.eval_dataset, dict) else "none"
            raise InputError(f"eval_dataset: there is no set named '{eval_dataset}' (known: {known})")
        with self._all_rows():
            if eval_dataset is None or isinstance(eval_dataset, str):
                return super().get_eval_dataloader(eval_dataset)
            # the Trainer keeps loaders of persistent workers, one for all sets without a name
            return super().get_test_dataloader(self._eval_rows(eval_dataset, "eval_dataset"))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Batches of pairs, by length; they may have no labels."""
        with self._all_rows():
            return super().get_test_dataloader(self._eval_rows(test_dataset, "test_dataset", label_needed=False))

    @contextlib.contextmanager
    def _all_rows(self) -> Iterator[None]:
        """Within the block, loaders leave no rows out: `dataloader_drop_last` is meant for trainings."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        # group_by_length would permute what is sorted already, and nobody could put it back
        return SequentialSampler(eval_dataset) if self.args.world_size == 1 else None

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of pairs, or of the trainer's own evaluation sets.

        Raises:
            InputError: a training is to choose by a metric that is not among them.
        """
        due, own = self.control.should_evaluate, eval_dataset is None and metric_key_prefix == "eval"
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        # the Trainer takes what a callback evaluates for the evaluation that is due
        self.control.should_evaluate = due and not own
        best = self.args.metric_for_best_model
        if self.is_in_train and own and best is not None and f"eval_{best.removeprefix('eval_')}" not in metrics:
            found = [name for name in metrics if name.startswith("eval_") and not name.endswith(SPEED)]
            raise InputError(f"metric_for_best_model: '{best}' is not measured; choose one of {', '.join(found)}")
        return metrics

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate or predict, with results in the order of what was given."""
        rows = dataloader.dataset
        order = np.argsort(column(rows, "row")) if isinstance(rows, Dataset) and "row" in rows.column_names else None
        has_loss = isinstance(rows, Dataset) and self.has_loss(rows)
        self._evaluated = EvaluatedRows(order, has_loss, description == "Prediction")
        loss_only = self.args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only
        if loss_only and not has_loss:
            raise InputError(
                f"prediction_loss_only: loss '{self.args.loss}' has no value here, for want of labels in [-1, 1]; "
                "set it to False"
            )
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        return output._replace(
            predictions=_in_order(output.predictions, order), label_ids=_in_order(output.label_ids, order)
        )

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Scores of a batch, and the loss where labels are on its scale."""
        inputs = {name: value.to(self.args.device) for name, value in inputs.items()}
        labels = inputs.pop("labels", None)
        with torch.no_grad(), self.compute_loss_context_manager():
            if self._evaluated is None or not self._evaluated.has_loss:
                return None, self.scores(model, inputs).detach(), labels
            loss, outputs = self.compute_loss(model, {**inputs, "labels": labels}, return_outputs=True)
            if prediction_loss_only:
                return loss.detach(), None, None
            known = isinstance(outputs, dict) and self.score_name in outputs
            scores = outputs[self.score_name] if known else self.scores(model, inputs)
            return loss.detach(), scores.detach(), labels

    def _eval_rows(self, pairs: Any, name: str, label_needed: bool = True) -> Dataset:
        """Rows by length, so that they hardly pad; the column `row` says where they were."""
        if is_tokenised(pairs):
            return cast(Dataset, pairs)
        dataset = as_dataset(pairs, name)
        with self.args.main_process_first(desc="tokenising"):
            rows = self.tokenise(dataset, PairCheck(name, label_needed), training=False)
        return cast(Dataset, rows.sort("length", reverse=True))

    @property
    def _metric_name(self) -> str:
        return getattr(self.metric, "__name__", type(self.metric).__name__)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        assert self._evaluated is not None
        scores = prediction.predictions
        if isinstance(scores, np.ndarray) and scores.dtype.kind == "f" and not np.isfinite(scores).all():
            raise DivergedError(f"a score is nan or infinite at step {self.state.global_step}; {LOWER}")
        if self._given_metrics is not None:
            order = self._evaluated.order
            return self._given_metrics(
                EvalPrediction(
                    _in_order(scores, order),
                    _in_order(prediction.label_ids, order),
                    prediction.inputs,
                    prediction.losses,
                )
            )
        value = self.metric(np.asarray(scores), np.asarray(prediction.label_ids))
        if np.isnan(value) and not self._evaluated.for_prediction:
            # it never counts as the best, so that the last checkpoint would be kept without a word
            raise InputError(
                f"eval_dataset: {self._metric_name} of its labels is nan; give labels that are not all the same"
            )
        return {self._metric_name: value}


def _in_order(values: Any, order: np.ndarray | None) -> Any:
    """Arrays, alone or in a tuple, with their rows in this order."""
    if order is None or values is None:
        return values
    if isinstance(values, tuple):
        return tuple(_in_order(part, order) for part in values)
    return values[order]
