"""What both trainers share: tokenised pairs, batches, the loss of a step, checkpoints that load."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from datasets import IterableDataset
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EvalPrediction,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from te_trainer.errors import InputError
from te_trainer.metrics import Metric, spearman
from te_trainer.models.attention import check_attention
from te_trainer.models.packed import to_device
from te_trainer.models.precision import tf32
from te_trainer.models.weights import remove_adapter
from te_trainer.trainers.arguments import as_arguments
from te_trainer.trainers.callbacks import EvaluateEachEpoch, MarkWholeCheckpoints, StopOnNaN
from te_trainer.trainers.contrastive import SentenceViews
from te_trainer.trainers.dataloaders import WholeStream, batch_source, worker_settings
from te_trainer.trainers.datasets import PairCheck, as_dataset, column_values, is_tokenised
from te_trainer.trainers.encoders import as_encoder, same_tokenizer
from te_trainer.trainers.evaluation import EvaluatingTrainer
from te_trainer.trainers.official_adamw import OfficialEpsilon, refuse_optimizer_of_deepspeed
from te_trainer.trainers.sampler import MicroBatches, grouped_by_length, shuffled, whole_batches
from te_trainer.trainers.sharding import fit_fsdp2, gather_weights
from te_trainer.trainers.strategies import decide_strategies

# They decide what is made, checked or chosen with a trainer, before a trial of a search has its values.
FIXED_ARGUMENTS = ("attn_implementation", "both_orders", "loss", "official_adamw", "precision", "span")


class PairTrainer(EvaluatingTrainer):
    """Base of the two trainers: a Trainer of an encoder on pairs of sentences.

    It and its bases override public methods of `transformers.Trainer`, and three private ones that `te_trainer.compat`
    lists.
    """

    # `compute_loss` weighs each micro-batch by its pairs; the Trainer would weigh a small last one as much as others
    loss_is_scaled_for_ga = True

    args: Any
    encoder_class: ClassVar[type[Any]]
    arguments_class: ClassVar[type[Any]]
    collator_class: ClassVar[Any]
    losses: ClassVar[Mapping[str, Any]]
    loss_inputs: ClassVar[tuple[str, ...]]  # keys of `outputs` that `loss_function` takes, in front of the labels
    sequences_per_pair: ClassVar[int]  # in a batch
    _token_ops: int | None = None  # floating-point operations of a token, once they are counted

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
        """Make a trainer; `docs/trainers.md` shows how it is used.

        Args:
            model: What is trained: an encoder of this library, a name or folder that its `from_pretrained` loads, an
                object of sentence-transformers, or a `PreTrainedModel` together with `processing_class`.
            args: Defaults to the paper's. All values of plain `TrainingArguments` are taken as they are.
            train_dataset: A `Dataset`, an `IterableDataset` (which needs `args.max_steps`) or a list of dicts, with the
                columns `sentence1`, `sentence2` and, if the loss takes labels, `label`.
            eval_dataset: The same columns, gold scores on any scale; or a dict of several sets, whose metrics are named
                `eval_NAME_spearman`. With it the best checkpoint is loaded at the end; the first set chooses it, unless
                `args.metric_for_best_model` does. Where all labels of a set may be labels of the loss, there is an
                `eval_loss` too.
            metric: Scores and labels to a number; more is better unless `args.greater_is_better` is False.
            callbacks: More callbacks.
            peft_config: Adapters that are trained instead of all weights. Checkpoints and `save_model` then hold them
                alone. For plain weights, assign `encoder.model = encoder.model.merge_and_unload()`, with `encoder =
                trainer.encoder`, and call `encoder.save_pretrained(folder)`.
            data_collator: Makes batches of tokenised rows, as the collator of this trainer's `collator_class` does.
            processing_class: The tokenizer of `model`. That of a decoder is given padding and an end of texts.
            model_init: Gives the model anew for each training, instead of `model`.
            compute_loss_func: Called as `f(outputs, labels, num_items_in_batch=...)` instead of `args.loss`. `outputs`
                are those of this trainer's method `outputs`; `num_items_in_batch` is the number of pairs in the
                optimiser step, in evaluation in the batch, by which a sum is to be divided.
            compute_metrics: Called with an `EvalPrediction` of scores and labels, in the order of the data set, instead
                of `metric`. With it the best checkpoint is loaded where `args.metric_for_best_model` names one of its
                metrics.
            optimizers: An optimiser of the model's weights, and a scheduler.
            check_labels: Refuse labels that `args.loss` cannot take.
            kwargs: Other arguments of `transformers.Trainer`.

        Raises:
            InputError: A value cannot be used; the message names the argument, and the row and column.
        """
        if not callable(metric):
            raise InputError(f"metric: a {type(metric).__name__} where a function of scores and labels is expected")
        if (model is None) == (model_init is None):
            raise InputError("model: give either a model or a model_init, and not both")
        if model_init is not None and optimizers != (None, None):
            raise InputError("optimizers: each model of a model_init needs its own; give optimizer_cls_and_kwargs")
        # a copy, because what is set below is of this training alone
        settings: Any = copy.copy(as_arguments(args, self.arguments_class))
        self.args = settings
        settings.remove_unused_columns = False
        # accelerate would make one batch of a stream's batches for several processes, which their lengths forbid
        settings.accelerator_config = copy.copy(settings.accelerator_config)
        settings.accelerator_config.dispatch_batches = False
        if settings.batch_eval_metrics and compute_metrics is None:
            raise InputError(
                "batch_eval_metrics: a rank correlation is no mean over batches; leave it out, or give compute_metrics"
            )
        if settings.loss not in self.losses:
            raise InputError(f"loss: '{settings.loss}' is none of {', '.join(self.losses)}")
        self.metric = metric
        self.peft_config = peft_config
        self.check_labels = check_labels
        self.compute_loss_func = compute_loss_func
        self._user_tokenizer = processing_class
        if model_init is not None:
            self.model_init = model_init
            set_seed(settings.seed)
            model = super().call_model_init()
        self.encoder = as_encoder(model, self.encoder_class, processing_class, settings.seed)
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        each_epoch = decide_strategies(
            settings,
            None if self.eval_dataset is None else [name and f"{name}_" for name in sets],
            None if compute_metrics else self._metric_name,
            self.eval_dataset is not None and all(self.has_loss(rows) for rows in sets.values()),
        )
        self._prepare_encoder()
        if optimizers[0] is not None:
            weights = {id(weight) for group in optimizers[0].param_groups for weight in group["params"]}
            if not any(id(weight) in weights for weight in self.encoder.model.parameters() if weight.requires_grad):
                raise InputError(
                    "optimizers: the optimiser holds none of the encoder's weights; give optimizer_cls_and_kwargs"
                )
        self.each_epoch = EvaluateEachEpoch()
        self.stop_on_nan = StopOnNaN()
        self.official_epsilon = OfficialEpsilon()
        # accelerate would turn it on for a compiled model in float32, and for all that this process computes
        with tf32(None):
            super().__init__(
                model=self.encoder.model,
                args=settings,
                data_collator=data_collator or self.collator_class(self.encoder.tokenizer),
                train_dataset=self.train_dataset,
                eval_dataset=self.eval_dataset,
                processing_class=self.encoder.tokenizer,
                compute_loss_func=compute_loss_func,
                compute_metrics=compute_metrics,
                callbacks=[
                    *([self.each_epoch] if each_epoch else []),
                    self.stop_on_nan,
                    *([self.official_epsilon] if settings.official_adamw else []),
                    *(callbacks or []),
                    MarkWholeCheckpoints(),
                ],
                optimizers=optimizers,
                **kwargs,
            )
        self.model_init = model_init  # type: ignore[assignment]
        if self.is_fsdp_enabled:
            fit_fsdp2(self.accelerator.state.fsdp_plugin, self.model)
        if self.is_deepspeed_enabled:
            gather_weights(self.accelerator.state.deepspeed_plugin.deepspeed_config)
        if settings.official_adamw:
            if self.optimizer is not None:
                self.official_epsilon.follow(self.optimizer)
            if self.is_deepspeed_enabled:
                refuse_optimizer_of_deepspeed(self.accelerator.state.deepspeed_plugin.deepspeed_config)

    def _prepare_encoder(self) -> None:
        """Make the encoder ready for this trainer."""
        if self.peft_config is not None and isinstance(self.encoder.model, PeftModel):
            raise InputError(
                "peft_config: the encoder has an adapter, which a new one would reset; leave peft_config out to train "
                "the adapter on, or merge it before: encoder.model = encoder.model.merge_and_unload()"
            )
        trains = self.train_dataset is not None
        device = self.args.device.type
        check_attention(self.encoder.model, self._attention, "attn_implementation", trains=trains, device=device)
        if self.peft_config is not None:
            # adapters are drawn before the Trainer seeds anything
            set_seed(self.args.seed)
            adapters = copy.deepcopy(self.peft_config)
            self.encoder.model = get_peft_model(self.encoder.model, adapters, revision=self.encoder.commit)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """The model of a new encoder, which is `self.encoder` from then on."""
        encoder = as_encoder(super().call_model_init(trial), self.encoder_class, self._user_tokenizer, self.args.seed)
        names = ("max_length", "prompt")
        changed = [name for name in names if getattr(encoder, name, None) != getattr(self.encoder, name, None)]
        if not same_tokenizer(encoder.tokenizer, self.encoder.tokenizer):
            changed.append("the tokenizer")
        for name in changed:
            raise InputError(f"model_init: {name} must be the same at each call; the data sets are tokenised with it")
        self.encoder = encoder
        self._prepare_encoder()
        return cast(nn.Module, encoder.model)

    def _hp_search_setup(self, trial: Any) -> None:
        """The Trainer's, after which the arguments of a training are known, those of a trial too."""
        fixed = {name: getattr(self.args, name, None) for name in FIXED_ARGUMENTS}
        super()._hp_search_setup(trial)
        for name, value in fixed.items():
            if getattr(self.args, name, None) != value:
                raise InputError(f"hp_space: {name} is fixed when a trainer is made; leave it out, or compare trainers")
        self._training.enter_context(self.training_context())

    # ------------------------------------------------------------ pairs and batches

    @property
    def train_dataset(self) -> Any:
        """Rows that are trained on; pairs that are assigned are tokenised."""
        return self._train_dataset

    @train_dataset.setter
    def train_dataset(self, pairs: Any) -> None:
        if (
            pairs is not None
            and pairs is not getattr(self, "_train_dataset", None)
            and not is_tokenised(pairs, "train_dataset", self.token_key)
        ):
            dataset = as_dataset(pairs, "train_dataset", stream=True)
            if isinstance(dataset, IterableDataset) and self.args.max_steps <= 0:
                raise InputError("max_steps: an IterableDataset has no length; say how many steps to train")
            reason = f"loss '{self.args.loss}' takes labels in [-1, 1]; scale them, or set check_labels=False"
            takes_any = self._takes_any_label() or not self.check_labels
            check = PairCheck("train_dataset", label_range_reason=None if takes_any else reason)
            with self.args.main_process_first(desc="tokenising"):
                pairs = self.tokenise(dataset, check, training=True)
        self._train_dataset: Any = pairs

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's batches in random order, of similar length where that saves padding.

        The order follows from seed and epoch alone, and global batches depend neither on the number of ranks nor on
        gradient accumulation. A stream keeps its own order.
        """
        rows, args = self.train_dataset, self.args
        if isinstance(rows, IterableDataset):
            stream: Any = WholeStream(rows)
            loader: Any = self._get_dataloader(stream, "Training", self._train_batch_size, is_training=True)
            loader.device = None  # as below, `training_step` copies batches
            return cast("DataLoader[Any]", loader)
        seed = args.seed if args.data_seed is None else args.data_seed
        size = self._train_batch_size  # `auto_find_batch_size` may have changed it
        count, batch_size = len(rows), size * args.world_size
        order: Callable[[int], np.ndarray]
        if isinstance(rows, SentenceViews):
            order, count = partial(whole_batches, count, batch_size, seed), count // batch_size * batch_size
        elif self.groups_by_length():
            lengths = column_values(rows, "length")
            order = partial(grouped_by_length, lengths, batch_size * args.gradient_accumulation_steps, seed)
        else:
            order = partial(shuffled, count, seed)
        batches = MicroBatches(
            order,
            count,
            size,
            args.gradient_accumulation_steps,
            args.process_index,
            args.world_size,
            drop_last=args.dataloader_drop_last,
        )
        if args.dataloader_drop_last and not len(batches):
            step = batch_size * args.gradient_accumulation_steps
            raise InputError(
                f"dataloader_drop_last: a step takes {step:,} pairs, and there are {count:,}; set it to false, or "
                "lower per_device_train_batch_size"
            )
        if not len(batches):
            raise InputError(
                f"train_dataset: {count:,} pairs are too few for {args.world_size} processes; start fewer, or give more"
            )
        # accelerate does not divide it: it is this rank's already
        workers = worker_settings(args, self.data_collator)
        workers |= {"persistent_workers": args.dataloader_persistent_workers}
        source = batch_source(rows, self.data_collator)
        batch_loader: Any = DataLoader(source, batch_sampler=batches, **workers)
        batch_loader.set_epoch = batches.set_epoch  # where the Trainer looks for it
        return cast("DataLoader[Any]", batch_loader)

    def pairs_in(self, batch: dict[str, Tensor]) -> int:
        """Pairs of a collated batch."""
        return len(batch["input_ids"]) // self.sequences_per_pair

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimiser step, and the number of pairs in all of them on all ranks."""
        batches = list(islice(epoch_iterator, num_batches))
        if isinstance(self.train_dataset, IterableDataset) and len(batches) < num_batches:
            if self.state.global_step == 0:
                raise InputError(
                    f"gradient_accumulation_steps: a pass over the stream holds fewer than {num_batches} batches, so "
                    "that no step could be made; lower it or the batch size"
                )
            # transformers makes no step of them and would add their gradient to the next pass's first one
            batches = []
        pairs = sum(self.pairs_in(batch) for batch in batches)
        if self.args.world_size == 1:
            return batches, pairs
        # the device fills it itself: it would wait for a copy
        return batches, self.accelerator.gather(torch.full((1,), pairs, device=device)).sum()

    # ------------------------------------------------------------ loss and optimiser

    def loss_function(self, *inputs: Any) -> Tensor:
        """The mean loss of a batch; override it for a loss of your own."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a micro-batch, and with `return_outputs` its `outputs`.

        It is a part of the mean over the pairs of the optimiser step on all ranks, `num_items_in_batch` (None in
        evaluation), times the number of ranks, because gradients are averaged over ranks afterwards.
        """
        pairs = self.pairs_in(inputs)
        outputs, labels = self.outputs(model, inputs), inputs.get("labels")
        weight: Tensor | float = self.args.world_size
        if self.compute_loss_func is not None:
            items = pairs if num_items_in_batch is None else num_items_in_batch
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=items)
        else:
            loss = self.loss_function(*(outputs[name] for name in self.loss_inputs), labels)
            if num_items_in_batch is not None:
                weight = pairs * weight / num_items_in_batch
        loss = loss if num_items_in_batch is None else loss * weight
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's; with `args.official_adamw` it makes the official code's steps."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if self.args.official_adamw and is_new:
            self.official_epsilon.follow(optimizer)
        return optimizer

    # ------------------------------------------------------------ training

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train. Afterwards the encoder's model computes as before, also where the training fails."""
        if self.train_dataset is None:
            raise InputError("train_dataset: there is none to train on; give one to the trainer")
        is_ours = type(self).compute_loss is PairTrainer.compute_loss
        if not is_ours and not self._says_how_loss_is_scaled() and self.args.gradient_accumulation_steps > 1:
            raise InputError(
                f"gradient_accumulation_steps: compute_loss is {type(self).__name__}'s own; set loss_is_scaled_for_ga "
                "in the class: False where it returns a mean over the micro-batch, True where it divides by "
                "num_items_in_batch, as super().compute_loss does"
            )
        if getattr(self.encoder.model, "_hf_peft_config_loaded", False):
            raise InputError(
                "model: it has an adapter by add_adapter, without which its checkpoints cannot be loaded again; give "
                "the model without it, and the adapter's configuration as peft_config"
            )
        self._resumes_from, self._token_ops = resume_from_checkpoint, None
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            # an earlier training has wrapped it
            self.model_wrapped = cast(nn.Module, self.model)
        try:
            with tf32(self.args.tf32), contextlib.ExitStack() as self._training:
                return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            # an exception would leave it set
            self.is_in_train = False
            self._release()

    def _says_how_loss_is_scaled(self) -> bool:
        """Whether a subclass sets `loss_is_scaled_for_ga`."""
        classes = type(self).__mro__
        return any("loss_is_scaled_for_ga" in vars(each) for each in classes[: classes.index(PairTrainer)])

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader[Any]) -> Any:
        """The Trainer's; a training that resumes from its last step has no epoch left, and makes no step more."""
        epochs, epoch_steps, *others, max_steps = super().set_initial_training_values(args, dataloader)
        folder = self._resumes_from
        if folder is True:
            folder = get_last_checkpoint(args.output_dir)
        if folder and (file := Path(folder, TRAINER_STATE_NAME)).is_file():
            step = TrainerState.load_from_json(str(file)).global_step
            epochs = step // epoch_steps if step >= max_steps else epochs
        return epochs, epoch_steps, *others, max_steps

    @contextlib.contextmanager
    def training_context(self) -> Iterator[None]:
        """The computation of a training, on the encoder that is trained."""
        with self._computation(training=True):
            yield

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor | Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward pass; the loss is watched for NaN."""
        # the Trainer's own copy would wait
        inputs = to_device(inputs, self.args.device)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.stop_on_nan.watch(loss, self.state.global_step + 1)
        return loss

    def _prepare_inputs(self, inputs: dict[str, Tensor | Any]) -> dict[str, Tensor | Any]:
        """The Trainer's, which under DeepSpeed's own bfloat16 would round labels to it, too."""
        prepared: dict[str, Tensor | Any] = super()._prepare_inputs(inputs)
        if "labels" in prepared:
            prepared["labels"] = inputs["labels"]
        return prepared

    def floating_point_ops(self, inputs: dict[str, Tensor | Any]) -> int:
        """The Trainer's, which counts all weights in each step; here they are counted once a training."""
        ids = inputs["input_ids"]
        if self._token_ops is None:
            self._token_ops = super().floating_point_ops({"input_ids": ids[:1, :1]})
        return ids.numel() * self._token_ops

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save weights, and beside them what sentence-transformers needs to load them."""
        if self.is_in_train:
            self.stop_on_nan.raise_if_bad()
        elif self.peft_config is not None and not isinstance(self.encoder.model, PeftModel):
            raise InputError(
                "save_model: it saves the adapter, and the encoder's model has none any more (merge_and_unload); save "
                "it with trainer.encoder.save_pretrained(folder)"
            )
        folder = Path(output_dir or self.args.output_dir or ".")
        if self.args.should_save and not isinstance(self.encoder.model, PeftModel):
            remove_adapter(folder)
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.encoder.save_layout(folder)
            if not _internal_call:
                self.finish_saved(folder)

    def groups_by_length(self) -> bool:
        """Whether batches are of pairs of similar length; by default that follows from device and precision."""
        strategy = self.args.train_sampling_strategy
        pads_on_cpu = self.args.device.type == "cpu" and self._backend().computes_padding
        return strategy == "group_by_length" or (strategy == "auto" and pads_on_cpu)
