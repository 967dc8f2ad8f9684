"""Training of a bi-encoder: from pseudo-labels (Trans-Encoder, section 2.3), or from positive pairs (section 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from transformers import TrainerCallback

from te_trainer.encoders import BiEncoder
from te_trainer.errors import InputError
from te_trainer.losses import cosine_bce, cosine_mse, cosine_similarity, info_nce
from te_trainer.metrics import Metric, spearman
from te_trainer.trainers.arguments import BiEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer, named
from te_trainer.trainers.collators import BiEncoderCollator
from te_trainer.trainers.gather import gather_with_gradient
from te_trainer.trainers.projection_head import attach_head, detach_head, drop_saved_head
from te_trainer.trainers.tokenise import tokenise_sentences
from te_trainer.trainers.views import SentenceViews

Loss = Callable[[Tensor, Tensor, Any], Tensor]

# The losses by name: a function of both sides' vectors and of the labels.
LOSSES: dict[str, Loss] = {"mse": cosine_mse, "bce": cosine_bce}


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

    Args:
        model ([`BiEncoder`] or `str`): the encoder, or what `BiEncoder.from_pretrained` loads.
        args ([`BiEncoderTrainingArguments`], *optional*): defaults to the paper's.
        train_dataset (`Dataset`, *optional*): columns `sentence1`, `sentence2`, and for mse `label` in [-1, 1].
        eval_dataset (`Dataset`, *optional*): columns `sentence1`, `sentence2`, `label`, gold scores on any scale. With
            it the best checkpoint is loaded at the end.
        metric (`Callable`, *optional*, defaults to `spearman`): scores and labels to a number, more is better.
        callbacks (`list`, *optional*): more callbacks.
        peft_config (`peft.PeftConfig`, *optional*): adapters that are trained instead of all weights; checkpoints and
            `save_model` then hold them alone, and `trainer.encoder.model.merge_and_unload()` gives plain weights.

    Example:
        ```python
        trainer = BiEncoderTrainer("bert-base-uncased", train_dataset=Dataset.from_dict(pairs))
        trainer.train()
        trainer.save_model("bi-encoder")  # SentenceTransformer("bi-encoder") loads it
        ```
    """

    encoder: BiEncoder
    args: BiEncoderTrainingArguments

    def __init__(
        self,
        model: BiEncoder | str,
        args: BiEncoderTrainingArguments | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        metric: Metric = spearman,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or BiEncoderTrainingArguments()
        losses: dict[str, Loss] = {**LOSSES, "info_nce": self._info_nce}
        self.loss_function = named(losses, args.loss)
        encoder = BiEncoder.from_pretrained(model) if isinstance(model, str) else model
        self.contrastive = args.loss == "info_nce"
        views = _views(encoder, args, train_dataset) if self.contrastive and train_dataset is not None else None
        with args.main_process_first(desc="tokenising"):
            train_dataset, eval_dataset = (
                dataset
                if dataset is None
                else tokenise_sentences(dataset, encoder.tokenizer, encoder.max_length, encoder.prompt)
                for dataset in (None if views else train_dataset, eval_dataset)
            )
        super().__init__(
            encoder,
            args,
            views or train_dataset,
            eval_dataset,
            metric,
            callbacks,
            BiEncoderCollator(encoder.tokenizer),
            peft_config,
            **kwargs,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of `args.loss` over the batch; cosine MSE (Eq. 3) is the paper's."""
        one, two = self._embed(model, inputs)
        loss = self.share(self.loss_function(one, two, inputs.get("labels")), len(one), num_items_in_batch)
        return (loss, {"scores": cosine_similarity(one, two)}) if return_outputs else loss

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Cosines, shape (n,)."""
        return cosine_similarity(*self._embed(model, inputs))

    def pairs_in(self, batch: dict[str, Tensor]) -> int:
        """Both sentences of each pair are in a batch."""
        return len(batch["input_ids"]) // 2

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, with a head on the encoder if `args.mlp_head`; it is gone afterwards."""
        if not (self.contrastive and self.args.mlp_head):
            return super().train(*args, **kwargs)
        handle = attach_head(self.encoder.model, self.args.seed)
        try:
            return super().train(*args, **kwargs)
        finally:
            # FSDP has made one tensor of the head's weights and others; they leave when the encoder is saved.
            if not self.is_fsdp_enabled:
                detach_head(self.encoder.model, handle)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save weights, and beside them what sentence-transformers needs to load them; a checkpoint keeps the head."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and self.args.mlp_head and not _internal_call:
            drop_saved_head(Path(output_dir or self.args.output_dir or "."))

    def _info_nce(self, one: Tensor, two: Tensor, labels: None) -> Tensor:
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
