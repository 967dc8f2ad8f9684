"""Evaluation of pairs of sentences: scores in the order of the pairs, and their metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from te_trainer.errors import DivergedError, InputError
from te_trainer.metrics import Metric
from te_trainer.models.packed import to_device
from te_trainer.trainers.callbacks import LOWER_RATE_HINT, EvaluateEachEpoch
from te_trainer.trainers.computation import ComputingTrainer
from te_trainer.trainers.dataloaders import batch_source, worker_settings
from te_trainer.trainers.datasets import (
    LABEL_TOLERANCE,
    PairCheck,
    TokenRows,
    as_dataset,
    column_values,
    is_tokenised,
    once_each,
)


class EvaluatingTrainer(ComputingTrainer):
    """A Trainer whose evaluation sets are pairs of sentences.

    They are tokenised when they are assigned. Batches hold pairs of similar length, and hardly pad; results come back
    in the order of the pairs.
    """

    args: Any
    metric: Metric
    bounded_losses: ClassVar[tuple[str, ...]]  # their labels lie in [-1, 1]
    score_name: ClassVar[str]  # key of the scores in `outputs`
    _user_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None
    each_epoch: EvaluateEachEpoch
    _order: np.ndarray | None = None  # position of each pair among those of the batches; None for the same order
    _measures_loss = False

    @property
    def token_key(self) -> tuple[Any, ...]:
        """The tokenizer, and what else token ids depend on."""
        encoder = self.encoder
        return encoder.tokenizer, encoder.kind, encoder.max_length, getattr(encoder, "prompt", "")

    def tokenise(self, pairs: Any, check: PairCheck, training: bool) -> Any:
        """The rows that batches are made of."""
        raise NotImplementedError

    def outputs(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a loss is computed of, among it the score of each pair (float32, shape (n,), higher for more alike)."""
        raise NotImplementedError

    def has_custom_loss(self) -> bool:
        """Whether the loss is the user's: a `compute_loss_func`, or a method of a subclass."""
        methods = (getattr(type(self), name) for name in ("loss_function", "compute_loss"))
        ours = all(str(method.__module__).startswith("te_trainer.") for method in methods)
        return self.compute_loss_func is not None or not ours

    def _takes_any_label(self) -> bool:
        return self.has_custom_loss() or self.args.loss not in self.bounded_losses

    def has_loss(self, rows: Dataset) -> bool:
        """Whether the loss can be measured on evaluation rows: gold scores may be on a scale of their own."""
        if "label" not in rows.column_names or (self.args.loss == "info_nce" and self.compute_loss_func is None):
            return False
        largest = np.abs(column_values(rows, "label")).max()
        return self._takes_any_label() or bool(largest <= 1 + LABEL_TOLERANCE)

    @property
    def eval_dataset(self) -> Any:
        """Rows of the evaluation set, or a dict of those of several; pairs that are assigned are tokenised."""
        return self._eval_dataset

    @eval_dataset.setter
    def eval_dataset(self, pairs: Any) -> None:
        if isinstance(pairs, Mapping):
            sets = {str(name): self._eval_rows(rows, f"eval_dataset['{name}']") for name, rows in pairs.items()}
            self._eval_dataset: Any = sets or None
        else:
            self._eval_dataset = None if pairs is None else self._eval_rows(pairs, "eval_dataset")

    @property
    def compute_metrics(self) -> Any:
        """What the Trainer calls with scores and labels: the user's function, or `metric` where there is none."""
        return self._user_metrics if self.args.batch_eval_metrics else self._metrics

    @compute_metrics.setter
    def compute_metrics(self, function: Callable[[EvalPrediction], dict[str, float]] | None) -> None:
        self._user_metrics = function

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Batches of the trainer's evaluation set, of the one of that name among several, or of other pairs."""
        own = self.eval_dataset
        if isinstance(eval_dataset, str):
            sets = own if isinstance(own, dict) else {}
            if eval_dataset not in sets:
                raise InputError(f"eval_dataset: there is no set named '{eval_dataset}' (known: {', '.join(sets)})")
            eval_dataset = sets[eval_dataset]
        if own is None and eval_dataset is None:
            raise InputError("eval_dataset: there is none; give one to the trainer, or to evaluate")
        return self._eval_loader(self._eval_rows(own if eval_dataset is None else eval_dataset, "eval_dataset"))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Batches of pairs, which may have no labels."""
        return self._eval_loader(self._eval_rows(test_dataset, "test_dataset", label_needed=False))

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of pairs, or of the trainer's own evaluation sets."""
        due, own = self.control.should_evaluate, eval_dataset is None and metric_key_prefix == "eval"
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if own:
            self.each_epoch.evaluated_at = self.state.global_step
        # the Trainer takes what a callback evaluates for the evaluation that is due
        self.control.should_evaluate = due and not own
        if self._user_metrics is None and np.isnan(metrics.get(f"{metric_key_prefix}_{self._metric_name}", 0.0)):
            # NaN is never the best, so that the last checkpoint would be kept silently
            raise InputError(
                f"eval_dataset: {self._metric_name} is nan, as it is of labels that are all the same; give others"
            )
        return metrics

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate or predict, with results in the order of the pairs.

        Outside of a training, the encoder's model computes as before afterwards.

        Raises:
            InputError: A training is needed before it, as FSDP2 shards an encoder together with its optimiser.
        """
        parts = cast(nn.Module, self.model).modules()
        if self.accelerator.is_fsdp2 and not any(isinstance(part, FSDPModule) for part in parts):
            raise InputError(
                "evaluate, predict: FSDP2 shards an encoder together with its optimiser; call train before, or start "
                "the script without FSDP"
            )
        source: Any = dataloader.dataset  # another one, if a subclass makes the loader
        rows = source.rows if isinstance(source, TokenRows) else source
        self._measures_loss = isinstance(rows, Dataset) and self.has_loss(rows)
        self._order = getattr(source, "order", None)
        loss_only = self.args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only
        if loss_only and not self._measures_loss:
            raise InputError(
                f"prediction_loss_only: loss '{self.args.loss}' has no value here, for want of labels in [-1, 1]; "
                "set it to False"
            )
        with contextlib.ExitStack() as stack:
            if not self.is_in_train:
                stack.callback(self._release)
                stack.enter_context(self._computation())
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        return output._replace(
            predictions=self._in_order(output.predictions), label_ids=self._in_order(output.label_ids)
        )

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Loss, scores and labels of a batch; the loss is None where labels are not on its scale."""
        inputs = to_device(inputs, self.args.device)
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            if not self._measures_loss:
                return None, self.outputs(model, inputs)[self.score_name].detach(), labels
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
            if prediction_loss_only:
                return loss.detach(), None, None
            if not isinstance(outputs, dict) or self.score_name not in outputs:
                # compute_loss is a subclass's
                outputs = self.outputs(model, inputs)
            return loss.detach(), outputs[self.score_name].detach(), labels

    def _eval_rows(self, pairs: Any, name: str, label_needed: bool = True) -> Dataset:
        if is_tokenised(pairs, name, self.token_key):
            return once_each(pairs) if pairs is self.train_dataset else cast(Dataset, pairs)
        dataset = as_dataset(pairs, name)
        with self.args.main_process_first(desc="tokenising"):
            rows = self.tokenise(dataset, PairCheck(name, label_needed), training=False)
        return cast(Dataset, rows)

    def _eval_loader(self, rows: Dataset) -> DataLoader[Any]:
        """Batches of rows of similar length, without a row left out; accelerate divides them among the ranks."""
        args, collator = self.args, self.data_collator
        by_length = np.argsort(-column_values(rows, "length"), kind="stable")
        settings = worker_settings(args, collator)
        source: Any = batch_source(rows.select(by_length), collator)
        source.order = np.argsort(by_length)
        prepared: Any = self.accelerator.prepare(DataLoader(source, batch_size=args.eval_batch_size, **settings))
        # `prediction_step` copies batches, and does not wait; under DeepSpeed, `prepare` takes no `device_placement`
        prepared.device = None
        return cast("DataLoader[Any]", prepared)

    @property
    def _metric_name(self) -> str:
        return getattr(self.metric, "__name__", type(self.metric).__name__)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        scores, labels = prediction.predictions, prediction.label_ids
        if isinstance(scores, np.ndarray) and scores.dtype.kind == "f" and not np.isfinite(scores).all():
            raise DivergedError(f"a score is nan or infinite at step {self.state.global_step}; {LOWER_RATE_HINT}")
        if self._user_metrics is None:
            value: Any = self.metric(np.asarray(scores), np.asarray(labels))
            try:
                return {self._metric_name: float(value)}
            except TypeError:
                raise InputError(
                    f"metric: {self._metric_name} gives a {type(value).__name__} where a number is expected; wrap it "
                    "in a function that gives one, or several numbers as compute_metrics"
                ) from None
        losses = self._in_order(prediction.losses)
        return self._user_metrics(EvalPrediction(self._in_order(scores), self._in_order(labels), None, losses))

    def _in_order(self, values: Any) -> Any:
        """The rows of arrays, alone or in a tuple or a dict, in the order of the pairs."""
        if self._order is None or values is None:
            return values
        if isinstance(values, Mapping):
            return {name: self._in_order(part) for name, part in values.items()}
        if isinstance(values, tuple):
            return tuple(self._in_order(part) for part in values)
        return values[self._order]
