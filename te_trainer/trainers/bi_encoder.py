"""Training of a bi-encoder: from pseudo-labels (Trans-Encoder, section 2.3), or from positive pairs (section 2.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset, IterableDataset
from torch import Tensor, nn

from te_trainer.errors import InputError
from te_trainer.losses import cosine_bce, cosine_mse, cosine_similarity, info_nce
from te_trainer.models import BiEncoder
from te_trainer.models.collation import BiEncoderCollator
from te_trainer.trainers.arguments import BiEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer
from te_trainer.trainers.datasets import PairCheck
from te_trainer.trainers.gather import gather_with_gradient
from te_trainer.trainers.projection_head import attach_head, detach_head, drop_saved_head
from te_trainer.trainers.tokenise import tokenise_sentences
from te_trainer.trainers.views import SentenceViews

# The losses by name: a function of both sides' vectors and of the labels; info_nce is the trainer's own.
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor] | None] = {
    "mse": cosine_mse,
    "bce": cosine_bce,
    "info_nce": None,
}


class BiEncoderTrainer(PairTrainer):
    """Trainer of a bi-encoder: the mean squared error between cosine and label, or InfoNCE over positive pairs.

    | columns                       | `loss`     | loss                                                          |
    |-------------------------------|------------|---------------------------------------------------------------|
    | sentence1, sentence2, `label` | `mse`      | mean of (cos(e1, e2) - label)^2 (Eq. 3)                       |
    |                               | `bce`      | binary cross-entropy with cos(e1, e2) as the logit (Table 8)  |
    | sentence1, sentence2          | `info_nce` | mean of -log softmax of cos(e1, e2) / T over the batch (Eq. 1)|

    Both sides of all pairs go through the model in one forward pass, so dropout differs between the two sides of a
    pair: with the same sentence on both, `info_nce` is SimCSE. Its negatives are the other pairs of the batch on all
    ranks; `args.mlp_head` and `args.span` are what SimCSE and Mirror-BERT add. Accumulated batches do not see each
    other: for more negatives, raise `per_device_train_batch_size`.

    What `Trainer` has besides is here as well: `evaluate` and `predict` take pairs, and give scores in their order;
    `docs/trainers.md` shows them, and losses of your own.

    Args:
        model ([`BiEncoder`], `str`, `Path`, `SentenceTransformer` or `PreTrainedModel`): what is trained. A name is
            loaded by `BiEncoder.from_pretrained`; a `PreTrainedModel` (of `AutoModel`) needs `processing_class`, is
            pooled by its first token (a decoder by its last), and sentences are cut at 32 tokens.
        args ([`BiEncoderTrainingArguments`] or `TrainingArguments`, *optional*): defaults to the paper's. All values of
            plain `TrainingArguments` are taken as they are.
        train_dataset (`Dataset`, `IterableDataset` or `list[dict]`, *optional*): columns `sentence1`, `sentence2`, and
            but for info_nce `label`. Labels of mse and bce lie in [-1, 1]; others are refused, unless
            `check_labels` is False. An `IterableDataset` needs `args.max_steps`.
        eval_dataset (`Dataset`, `list[dict]` or a `dict` of these, *optional*): columns `sentence1`, `sentence2`,
            `label`, gold scores on any scale. With it the best checkpoint is loaded at the end. Of several sets the
            metrics are named `eval_NAME_spearman`, and the first one chooses, unless `args.metric_for_best_model` does.
            Where all labels of a set lie in [-1, 1], there is an `eval_loss` too.
        metric (`Callable`, *optional*, defaults to `spearman`): scores and labels to a number, more is better unless
            `args.greater_is_better` is False.
        callbacks (`list`, *optional*): more callbacks.
        peft_config (`peft.PeftConfig`, *optional*): adapters that are trained instead of all weights; checkpoints and
            `save_model` then hold them alone, and `trainer.encoder.model.merge_and_unload()` gives plain weights.
        data_collator (`Callable`, *optional*): makes batches as [`BiEncoderCollator`] does, out of rows with the
            columns `input_ids1`, `input_ids2` and `label`.
        processing_class (`PreTrainedTokenizerBase`, *optional*): the tokenizer of `model`.
        model_init (`Callable`, *optional*): gives the model anew for each training, instead of `model`.
        compute_loss_func (`Callable`, *optional*): called as `f(outputs, labels, num_items_in_batch=...)` instead of
            `args.loss`. `outputs` holds `scores` (cosines, shape (n,)), `embeddings1` and `embeddings2` (shape
            (n, hidden)); `num_items_in_batch` is the number of pairs in the optimiser step, by which a sum is to be
            divided, and None in evaluation.
        compute_metrics (`Callable`, *optional*): called with an `EvalPrediction` of cosines and labels, in the order of
            the data set, instead of `metric`. With it the best checkpoint is loaded where `metric_for_best_model` says
            by which metric.
        check_labels (`bool`, *optional*, defaults to `True`): refuse labels that `args.loss` cannot mean.

    Raises:
        InputError: what is given cannot be used; the message names the argument, and the row and column.

    Example:
        ```python
        trainer = BiEncoderTrainer("bert-base-uncased", train_dataset=Dataset.from_dict(pairs))
        trainer.train()
        trainer.save_model("bi-encoder")  # SentenceTransformer("bi-encoder") loads it
        ```
    """

    encoder: BiEncoder
    args: BiEncoderTrainingArguments
    encoder_class = BiEncoder
    arguments_class = BiEncoderTrainingArguments
    collator_class = BiEncoderCollator
    losses: ClassVar = LOSSES
    bounded_losses = ("mse", "bce")
    score_name = "scores"

    def tokenise(self, pairs: Any, check: PairCheck, training: bool) -> Any:
        """Token ids of both sentences; for info_nce, views that are tokenised when their turn comes."""
        encoder = self.encoder
        if training and self.args.loss == "info_nce":
            if isinstance(pairs, IterableDataset):
                raise InputError(
                    "train_dataset: info_nce draws its batches from the whole of it; give a Dataset instead of a stream"
                )
            return _views(encoder, self.args, pairs)
        return tokenise_sentences(
            pairs, encoder.tokenizer, encoder.max_length, encoder.prompt, check, numbered=not training
        )

    def loss_function(self, embeddings1: Tensor, embeddings2: Tensor, labels: Tensor | None) -> Tensor:
        """The mean loss of a batch; override it for a loss of your own.

        Args:
            embeddings1, embeddings2: vectors of both sides, shape (n, hidden).
            labels: shape (n,); None for positive pairs.
        """
        if self.args.loss == "info_nce":
            return self._info_nce(embeddings1, embeddings2)
        function = LOSSES[self.args.loss]
        assert function is not None and labels is not None
        return function(embeddings1, embeddings2, labels)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss over the batch, and with `return_outputs` what a `compute_loss_func` is given.

        It is `compute_loss_func`'s where there is one, else `loss_function`'s; cosine MSE (Eq. 3) is the paper's.
        """
        one, two = self._embed(model, inputs)
        labels = inputs.get("labels")
        outputs = {}
        if return_outputs or self.compute_loss_func is not None:
            outputs = {"scores": cosine_similarity(one, two), "embeddings1": one, "embeddings2": two}
        if self.compute_loss_func is not None:
            loss = self.custom_loss(outputs, labels, num_items_in_batch)
        else:
            loss = self.scale_loss_for_step(self.loss_function(one, two, labels), len(one), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Cosines, shape (n,)."""
        return cosine_similarity(*self._embed(model, inputs))

    def pairs_in(self, batch: dict[str, Tensor]) -> int:
        """Both sentences of each pair are in a batch."""
        return len(batch["input_ids"]) // 2

    @contextlib.contextmanager
    def training_context(self) -> Iterator[None]:
        """With a head on the encoder if `args.mlp_head`; it is gone afterwards."""
        with contextlib.ExitStack() as stack:
            if self.args.loss == "info_nce" and self.args.mlp_head:
                handle = attach_head(self.encoder.model, self.args.seed)
                # FSDP has made one tensor of the head's weights and others; they leave when the encoder is saved.
                if not self.is_fsdp_enabled:
                    stack.callback(detach_head, self.encoder.model, handle)
            stack.enter_context(super().training_context())
            yield

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save weights, and beside them what sentence-transformers needs to load them; a checkpoint keeps the head."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and not _internal_call:
            self.finish_saved(Path(output_dir or self.args.output_dir or "."))

    def finish_saved(self, folder: Path) -> None:
        """Take the head, which served training, out of a saved encoder, and put BERT's own pooler in."""
        super().finish_saved(folder)
        if self.args.mlp_head:
            drop_saved_head(folder)
        self.encoder.save_pooler(folder)

    def _info_nce(self, one: Tensor, two: Tensor) -> Tensor:
        all_two, own = gather_with_gradient(two)
        if not self.args.both_views:
            return info_nce(one, all_two, self.args.temperature, own)
        all_one, _ = gather_with_gradient(one)
        forth = info_nce(one, all_two, self.args.temperature, own, others=all_one)
        back = info_nce(two, all_one, self.args.temperature, own, others=all_two)
        return (forth + back) / 2

    def _embed(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        one, two = self.encoder.embed(inputs["input_ids"], inputs["attention_mask"], model).chunk(2)
        return one, two


def _views(encoder: BiEncoder, args: BiEncoderTrainingArguments, pairs: Dataset) -> SentenceViews:
    if args.mlp_head and encoder.pooling != "cls":
        raise InputError(f"mlp_head: the head stands on [CLS], but pooling is {encoder.pooling}; set one or the other")
    seed = args.seed if args.data_seed is None else args.data_seed
    views = SentenceViews(pairs, encoder.tokenizer, encoder.max_length, args.span, seed, encoder.prompt)
    batch = args.train_batch_size * args.world_size
    if len(views) < batch:
        raise InputError(
            f"the dataset has {len(views)} pairs, and a batch {batch}; give more, or lower per_device_train_batch_size"
        )
    return views
