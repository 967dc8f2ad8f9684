"""What both trainers share: tokenised pairs, length-grouped batches, evaluation by rank, checkpoints that load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer, TrainerCallback

from te_trainer.encoders import Encoder
from te_trainer.errors import DivergedError, InputError
from te_trainer.metrics import Metric
from te_trainer.trainers.arguments import PairTrainingArguments
from te_trainer.trainers.callbacks import LOWER, EvaluateEachEpoch, MarkWholeCheckpoints, StopOnNaN
from te_trainer.trainers.sampler import LengthGroupedSampler
from te_trainer.trainers.tokenise import lengths

Loss = TypeVar("Loss")


def named(losses: Mapping[str, Loss], name: str) -> Loss:
    """The loss of a name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in losses:
        raise InputError(f"loss: '{name}' is none of {', '.join(losses)}")
    return losses[name]


class PairTrainer(Trainer):
    """Base of the two trainers; says how pairs become batches, and leaves scores and loss to them.

    Only public hooks of `transformers.Trainer` are overridden.
    """

    # Our losses are means over a batch: the Trainer has to divide by the accumulation steps, and would not do so by
    # itself, because every encoder's forward takes **kwargs.
    loss_is_scaled_for_ga = False

    args: PairTrainingArguments

    def __init__(
        self,
        encoder: Encoder,
        args: PairTrainingArguments,
        train_dataset: Dataset | None,
        eval_dataset: Dataset | None,
        metric: Metric,
        callbacks: list[TrainerCallback] | None,
        data_collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder
        self.metric = metric
        self.stop_on_nan = StopOnNaN()
        if eval_dataset is not None:
            # Spearman and AUC do not ask for an order, and sorted rows hardly pad.
            eval_dataset = eval_dataset.sort("length", reverse=True)
            args.eval_strategy = args.save_strategy = "steps"
            args.save_steps = args.eval_steps or 200
            args.load_best_model_at_end = True
            args.metric_for_best_model = args.metric_for_best_model or metric.__name__
            args.greater_is_better = True
        super().__init__(
            model=encoder.model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=encoder.tokenizer,
            compute_metrics=self._metrics,
            callbacks=[EvaluateEachEpoch(), self.stop_on_nan, *(callbacks or []), MarkWholeCheckpoints()],
            **kwargs,
        )

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """What the encoder says of each pair of a batch, higher for more similar; float32, shape (n,)."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of similar length in random order; the order follows from seed and epoch alone."""
        dataset = self.train_dataset
        if not isinstance(dataset, Dataset):
            return super().get_train_dataloader()
        sampler = LengthGroupedSampler(
            lengths(dataset),
            self.args.train_batch_size * self.args.world_size,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            # While an epoch begins, the state counts exactly the epochs before it, in a resumed run too.
            epoch=lambda: int(self.state.epoch or 0),
        )
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=self.args.train_batch_size,
            sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            drop_last=self.args.dataloader_drop_last,
        )
        return self.accelerator.prepare(loader)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and leave the encoder as it came: accelerate's autocast around its forward would stay on it."""
        output = super().train(*args, **kwargs)
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return output

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor | Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward pass; the loss is watched for NaN."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.stop_on_nan.watch(loss, self.state.global_step + 1)
        return loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Scores of a batch. There is no loss: gold scores are on a scale of their own."""
        inputs = {name: value.to(self.args.device) for name, value in inputs.items()}
        labels = inputs.pop("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, self.scores(model, inputs).detach(), labels

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save weights, and beside them what sentence-transformers needs to load them."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.encoder.save_layout(output_dir or self.args.output_dir or ".")

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        scores = np.asarray(prediction.predictions)
        if not np.isfinite(scores).all():
            raise DivergedError(f"a score is nan or infinite at step {self.state.global_step}; {LOWER}")
        return {self.metric.__name__: self.metric(scores, np.asarray(prediction.label_ids))}
