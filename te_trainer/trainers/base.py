"""What both trainers share: tokenised pairs, batches, evaluation by rank, checkpoints that load."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, cast

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from te_trainer.errors import InputError
from te_trainer.metrics import Metric, spearman
from te_trainer.models.packed import AttentionBackend, choose_backend, use_backend
from te_trainer.models.precision import autocast
from te_trainer.trainers.arguments import as_arguments
from te_trainer.trainers.callbacks import EvaluateEachEpoch, MarkWholeCheckpoints, StopOnNaN
from te_trainer.trainers.datasets import TOLERANCE, PairCheck, as_dataset
from te_trainer.trainers.evaluating import EvaluatingTrainer
from te_trainer.trainers.models import as_encoder, same_tokenizer
from te_trainer.trainers.official_adamw import make_official, refuse_optimizer_of_deepspeed
from te_trainer.trainers.refusals import refuse_arguments, refuse_keywords, refuse_optimizer
from te_trainer.trainers.sampler import LengthGroupedSampler, MicroBatches, ShuffledSampler, ViewSampler
from te_trainer.trainers.strategies import decide_strategies
from te_trainer.trainers.tokenise import column, is_tokenised, lengths
from te_trainer.trainers.views import SentenceViews


class PairTrainer(EvaluatingTrainer):
    """Base of the two trainers; says how pairs become batches, and leaves scores and loss to them.

    Beside public methods of `transformers.Trainer`, two private ones are overridden, in the classes below this one:
    `_get_eval_sampler` and `_push_from_checkpoint`.
    """

    # `scale_loss_for_step` weighs every micro-batch by its pairs; the Trainer would weigh a small last one as much as
    # the others.
    loss_is_scaled_for_ga = True

    args: Any
    encoder: Any
    # of the two trainers
    encoder_class: ClassVar[type[Any]]
    arguments_class: ClassVar[type[Any]]
    collator_class: ClassVar[Any]
    losses: ClassVar[Mapping[str, Any]]
    bounded_losses: ClassVar[tuple[str, ...]]  # whose labels lie in [-1, 1]

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        metric: Metric = spearman,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: PeftConfig | None = None,
        *,
        data_collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[..., Any] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        check_labels: bool = True,
        **kwargs: Any,
    ) -> None:
        refuse_keywords(kwargs)
        if not callable(metric):
            raise InputError(f"metric: a {type(metric).__name__} where a function of scores and labels is expected")
        # what is set below is of this training alone
        ours: Any = copy.copy(as_arguments(args, self.arguments_class))
        self.args = ours
        ours.remove_unused_columns = False
        # of a stream's batches for several processes accelerate would make one, which their lengths forbid
        ours.accelerator_config = copy.copy(ours.accelerator_config)
        ours.accelerator_config.dispatch_batches = False
        refuse_arguments(ours, compute_metrics is not None)
        if ours.loss not in self.losses:
            raise InputError(f"loss: '{ours.loss}' is none of {', '.join(self.losses)}")
        if (model is None) == (model_init is None):
            raise InputError("model: give either a model or a model_init, and not both")
        if model_init is not None and optimizers != (None, None):
            raise InputError(
                "optimizers: with a model_init each training has weights of its own; give optimizer_cls_and_kwargs"
            )
        self.metric = metric
        self.peft_config = peft_config
        self.check_labels = check_labels
        self.compute_loss_func = compute_loss_func
        self._given_tokenizer = processing_class
        self._training = contextlib.ExitStack()
        if model_init is not None:
            self.model_init = model_init
            set_seed(ours.seed)
            model = super().call_model_init()
        self.encoder = as_encoder(model, self.encoder_class, processing_class, ours.seed)
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        each_epoch = decide_strategies(
            ours,
            None if self.eval_dataset is None else [name and f"{name}_" for name in sets],
            None if compute_metrics else self._metric_name,
            self.eval_dataset is not None and all(self.has_loss(rows) for rows in sets.values()),
        )
        self._prepare_encoder()
        refuse_optimizer(optimizers[0], self.encoder.model)
        self.stop_on_nan = StopOnNaN()
        super().__init__(
            model=self.encoder.model,
            args=ours,
            data_collator=data_collator or self.collator_class(self.encoder.tokenizer),
            train_dataset=self.train_dataset,
            eval_dataset=self.eval_dataset,
            processing_class=self.encoder.tokenizer,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=[
                *([EvaluateEachEpoch()] if each_epoch else []),
                self.stop_on_nan,
                *(callbacks or []),
                MarkWholeCheckpoints(),
            ],
            optimizers=optimizers,
            **kwargs,
        )
        self.model_init = model_init  # type: ignore[assignment]
        if ours.official_adamw and self.optimizer is not None:
            make_official(self.optimizer)
        if ours.official_adamw and self.is_deepspeed_enabled:
            plugin: Any = self.accelerator.state.deepspeed_plugin
            refuse_optimizer_of_deepspeed(plugin.deepspeed_config)

    def _prepare_encoder(self) -> None:
        """Make the encoder ready for this trainer, once it is there."""
        args, encoder = self.args, self.encoder
        if self.peft_config is not None:
            # adapters are drawn before the Trainer seeds anything
            set_seed(args.seed)
            encoder.model = cast(PreTrainedModel, get_peft_model(encoder.model, copy.deepcopy(self.peft_config)))

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """The model of a new encoder, which is `self.encoder` from then on.

        Raises:
            InputError: its tokenizer, `max_length` or `prompt` is not that of the first one, with which the data sets
                were tokenised.
        """
        encoder = as_encoder(super().call_model_init(trial), self.encoder_class, self._given_tokenizer, self.args.seed)
        for name in ("max_length", "prompt"):
            if getattr(encoder, name, None) != getattr(self.encoder, name, None):
                raise InputError(
                    f"model_init: {name} must be the same at each call; the data sets are tokenised with it"
                )
        if not same_tokenizer(encoder.tokenizer, self.encoder.tokenizer):
            raise InputError(
                "model_init: the tokenizer must be the same at each call; the data sets are tokenised with it"
            )
        self.encoder = encoder
        self._prepare_encoder()
        if self.is_in_train:
            self._training.enter_context(self.training_context())
        return cast(nn.Module, encoder.model)

    def loss_function(self, *args: Any) -> Tensor:
        """The mean loss of a batch."""
        raise NotImplementedError

    @property
    def train_dataset(self) -> Any:
        """Rows that are trained on; pairs that are assigned are tokenised as those given at first are."""
        return self._train_dataset

    @train_dataset.setter
    def train_dataset(self, pairs: Any) -> None:
        if pairs is not None and pairs is not getattr(self, "_train_dataset", None):
            pairs = self._train_rows(pairs)
        self._train_dataset = pairs

    def _train_rows(self, pairs: Any) -> Dataset | IterableDataset | SentenceViews:
        name = "train_dataset"
        if is_tokenised(pairs):
            return cast(Dataset, pairs)
        dataset = as_dataset(pairs, name, stream=True)
        if isinstance(dataset, IterableDataset) and self.args.max_steps <= 0:
            raise InputError("max_steps: an IterableDataset has no length; say how many steps to train")
        check = PairCheck(name)
        if self.check_labels and not self._unbounded():
            reason = f"loss '{self.args.loss}' takes labels in [-1, 1]; scale them, or set check_labels=False"
            check = PairCheck(name, low=-1, high=1, reason=reason)
        with self.args.main_process_first(desc="tokenising"):
            return cast(Dataset, self.tokenise(dataset, check, training=True))

    def has_custom_loss(self) -> bool:
        """Whether the loss is the user's: a `compute_loss_func`, or a method of a subclass."""
        ours = all(
            str(getattr(type(self), name).__module__).startswith("te_trainer.")
            for name in ("loss_function", "compute_loss")
        )
        return self.compute_loss_func is not None or not ours

    def _unbounded(self) -> bool:
        """Whether any number may be a label."""
        return self.has_custom_loss() or self.args.loss not in self.bounded_losses

    def has_loss(self, rows: Dataset) -> bool:
        """Whether the loss can be measured on evaluation rows: gold scores may be on a scale of their own."""
        if "label" not in rows.column_names or (self.args.loss == "info_nce" and self.compute_loss_func is None):
            return False
        return self._unbounded() or bool(np.abs(column(rows, "label")).max() <= 1 + TOLERANCE)

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
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's; with `args.official_adamw` it makes the official code's steps."""
        made = self.optimizer is not None  # by an earlier training
        optimizer = super().create_optimizer(model)
        if self.args.official_adamw and not made:
            make_official(optimizer)
        return optimizer

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

    def scale_loss_for_step(self, loss: Tensor, pairs: int, num_items_in_batch: Tensor | int | None) -> Tensor:
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

    def custom_loss(
        self, outputs: dict[str, Tensor], labels: Tensor | None, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        """What the user's `compute_loss_func` gives, scaled as the Trainer does: gradients are averaged over ranks."""
        assert self.compute_loss_func is not None
        loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
        return loss if num_items_in_batch is None else loss * self.args.world_size

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
            with contextlib.ExitStack() as self._training:
                if self.model_init is None:
                    self._training.enter_context(self.training_context())
                return super().train(*args, **kwargs)
        finally:
            # an exception would leave it set
            self.is_in_train = False
            self._release()

    @contextlib.contextmanager
    def training_context(self) -> Iterator[None]:
        """What surrounds a training of the encoder that is there."""
        with use_backend(self.encoder.model, self._backend(), training=True):
            yield

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate or predict; outside of a training, the encoder is left as it came."""
        if self.is_in_train:
            return super().evaluation_loop(*args, **kwargs)
        try:
            with use_backend(self.encoder.model, self._backend()):
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
        pads = self.args.device.type == "cpu" and self._backend().computes_padding
        return strategy == "group_by_length" or (strategy == "auto" and pads)

    def _backend(self) -> AttentionBackend:
        return choose_backend(
            self.encoder.model,
            self.encoder.max_length,
            self.args.device,
            compiled=self.args.torch_compile,
            # its noise depends on a sentence's padded length
            needs_padding=bool(self.args.neftune_noise_alpha),
        )

    def _epoch(self) -> int:
        # While an epoch begins, the state counts exactly the epochs before it, in a resumed run too.
        return int(self.state.epoch or 0)
