"""What both trainers share: tokenised pairs, batches, evaluation by rank, checkpoints that load."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar, cast

import numpy as np
import torch
from datasets import Dataset
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback, set_seed

from te_trainer.encoders import Encoder
from te_trainer.encoders.dropout import use_cpu_dropout
from te_trainer.encoders.packing import is_packed
from te_trainer.encoders.precision import autocast
from te_trainer.errors import DivergedError, InputError
from te_trainer.metrics import Metric
from te_trainer.trainers.arguments import PairTrainingArguments
from te_trainer.trainers.callbacks import LOWER, EvaluateEachEpoch, MarkWholeCheckpoints, StopOnNaN
from te_trainer.trainers.sampler import LengthGroupedSampler, MicroBatches, ShuffledSampler, ViewSampler
from te_trainer.trainers.tokenise import lengths
from te_trainer.trainers.used_words import RefuseOtherWords, train_used_words
from te_trainer.trainers.views import SentenceViews

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

    # `share` weighs every micro-batch by its pairs; the Trainer would weigh a small last one as much as the others.
    loss_is_scaled_for_ga = True

    args: PairTrainingArguments

    def __init__(
        self,
        encoder: Encoder,
        args: PairTrainingArguments,
        train_dataset: Dataset | SentenceViews | None,
        eval_dataset: Dataset | None,
        metric: Metric,
        callbacks: list[TrainerCallback] | None,
        data_collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        # what is set below is of this training alone
        args = copy.copy(args)
        by_sentence = args.neftune_noise_alpha or (peft_config is not None and peft_config.is_prompt_learning)
        if by_sentence and is_packed(encoder.model):
            # vectors in front of every sentence, and noise by its length, are nothing for a row of all sentences
            encoder.model.set_attn_implementation("eager")
        if peft_config is not None:
            # adapters are drawn before the Trainer seeds anything
            set_seed(args.seed)
            encoder.model = cast(PreTrainedModel, get_peft_model(encoder.model, peft_config))
        if args.device.type == "cpu" and not args.torch_compile:
            use_cpu_dropout(encoder.model)
        elif is_packed(encoder.model):
            # what a compiler makes of padded batches is its own affair
            encoder.model.set_attn_implementation("sdpa")
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
            callbacks=[
                RefuseOtherWords(),
                EvaluateEachEpoch(),
                self.stop_on_nan,
                *(callbacks or []),
                MarkWholeCheckpoints(),
            ],
            **kwargs,
        )

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """What the encoder says of each pair of a batch, higher for more similar; float32, shape (n,)."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in random order, of similar length where that saves padding; it follows from seed and epoch alone.

        Global batches do not depend on the number of ranks, nor on gradient accumulation. The loader is already this
        rank's, so accelerate has nothing to divide.
        """
        dataset = self.train_dataset
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        size = self._train_batch_size  # what `auto_find_batch_size` has come to
        batch = size * args.world_size
        sampler: ShuffledSampler
        if isinstance(dataset, SentenceViews):
            sampler = ViewSampler(len(dataset), batch, seed, self._epoch)
        elif isinstance(dataset, Dataset) and self._grouped():
            sampler = LengthGroupedSampler(
                lengths(dataset), batch * args.gradient_accumulation_steps, seed, self._epoch
            )
        elif isinstance(dataset, Dataset):
            sampler = ShuffledSampler(len(dataset), seed, self._epoch)
        else:
            return super().get_train_dataloader()
        return DataLoader(
            dataset,
            batch_sampler=MicroBatches(
                sampler,
                size,
                args.gradient_accumulation_steps,
                args.process_index,
                args.world_size,
                args.dataloader_drop_last,
            ),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type != "cpu",
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimiser step, and the number of pairs in all of them on all ranks."""
        batches = list(islice(epoch_iterator, num_batches))
        pairs = torch.tensor([sum(self.pairs_in(batch) for batch in batches)], device=device)
        return batches, self.accelerator.gather(pairs).sum()

    def pairs_in(self, batch: dict[str, Tensor]) -> int:
        """Pairs of a collated batch."""
        return len(batch["labels"])

    def share(self, loss: Tensor, pairs: int, num_items_in_batch: Tensor | int | None) -> Tensor:
        """A micro-batch's part of the mean over all pairs of an optimiser step.

        Args:
            loss: mean over the micro-batch.
            pairs: in the micro-batch.
            num_items_in_batch: pairs of the step, on all ranks; None where nothing is accumulated.
        """
        if num_items_in_batch is None:
            return loss
        # gradients are averaged over the ranks afterwards
        return loss * (pairs * self.args.world_size / num_items_in_batch)

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        """The Trainer's autocast, or ours where an engine has none that leaves the weights alone."""
        stack = contextlib.ExitStack()
        stack.enter_context(super().compute_loss_context_manager())
        stack.enter_context(autocast(self.args.device, self.args.autocast))
        return stack

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and leave the encoder as it came, whatever happens."""
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            # what an earlier training wrapped
            self.model_wrapped = cast(nn.Module, self.model)
        try:
            with self._used_words():
                return super().train(*args, **kwargs)
        finally:
            # an exception would leave it set
            self.is_in_train = False
            self._release()

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate or predict; outside of a training, the encoder is left as it came."""
        if self.is_in_train:
            return super().evaluation_loop(*args, **kwargs)
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self._release()

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

    def _release(self) -> None:
        # accelerate leaves its autocast around the forward pass, and never prepares again what it has marked: the next
        # training would be in float32, and each of its processes on its own
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            self.accelerator.free_memory()
            self.model.__dict__.pop("_is_accelerate_prepared", None)

    def _grouped(self) -> bool:
        strategy = self.args.train_sampling_strategy
        pads = self.args.device.type == "cpu" and not is_packed(self.encoder.model)
        return strategy == "group_by_length" or (strategy == "auto" and pads)

    def _used_words(self) -> contextlib.AbstractContextManager[None]:
        # engines that take weights apart, and compilers, get the model as it is
        whole = not (self.is_deepspeed_enabled or self.is_fsdp_enabled or self.args.torch_compile)
        if whole and isinstance(self.train_dataset, Dataset):
            padding = self.encoder.tokenizer.pad_token_id
            return train_used_words(self.encoder.model, self.train_dataset, padding)
        return contextlib.nullcontext()

    def _epoch(self) -> int:
        # While an epoch begins, the state counts exactly the epochs before it, in a resumed run too.
        return int(self.state.epoch or 0)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        scores = np.asarray(prediction.predictions)
        if not np.isfinite(scores).all():
            raise DivergedError(f"a score is nan or infinite at step {self.state.global_step}; {LOWER}")
        value = self.metric(scores, np.asarray(prediction.label_ids))
        if np.isnan(value):
            # it never counts as the best, so that the last checkpoint would be kept without a word
            raise InputError(
                f"eval_dataset: {self.metric.__name__} of its labels is nan; give labels that are not all the same"
            )
        return {self.metric.__name__: value}
