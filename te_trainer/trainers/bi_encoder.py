"""Training of a bi-encoder: from pseudo-labels (Trans-Encoder, section 2.3), or from positive pairs (section 2.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import IterableDataset
from torch import Tensor, nn

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.errors import InputError
from te_trainer.losses import cosent, cosine_bce, cosine_mse, cosine_similarity
from te_trainer.models import BiEncoder
from te_trainer.models.bi_encoder import frozen_pooler
from te_trainer.models.collation import BiEncoderCollator
from te_trainer.trainers.arguments import BiEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer
from te_trainer.trainers.contrastive import SentenceViews, attach_head, detach_head, drop_saved_head, in_batch_loss
from te_trainer.trainers.datasets import PairCheck, tokenised


class BiEncoderTrainer(PairTrainer):
    """Trainer of a bi-encoder: the mean squared error between cosine and label, or InfoNCE over positive pairs.

    | columns                       | `loss`     | loss                                                          |
    |-------------------------------|------------|---------------------------------------------------------------|
    | sentence1, sentence2, `label` | `mse`      | mean of (cos(e1, e2) - label)^2 (Eq. 3)                       |
    |                               | `bce`      | binary cross-entropy with cos(e1, e2) as the logit (Table 8)  |
    |                               | `cosent`   | the batch's pairs in the order of their labels (CoSENT)       |
    | sentence1, sentence2          | `info_nce` | mean of -log softmax of cos(e1, e2) / T over the batch (Eq. 1)|

    Labels of `mse` and `bce` lie in [-1, 1]; `cosent` takes any, and only their order counts. Both sides of all pairs
    go through the model in one forward pass, so dropout differs between the two sides of a pair: with the same sentence
    on both, `info_nce` is SimCSE. Its negatives are the other pairs of the batch on all ranks; `args.mlp_head` and
    `args.span` are what SimCSE and Mirror-BERT add. Accumulated batches do not see each other: for more negatives,
    raise `per_device_train_batch_size`. So too for `cosent`, which compares the pairs of one rank's batch.

    `model` may be a [`BiEncoder`], a name, a folder, a `SentenceTransformer`, or a `PreTrainedModel` (of `AutoModel`)
    with `processing_class`, which is pooled by its first token (a decoder by its last) and reads 32 tokens of a
    sentence. Predictions are cosines.

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
    losses: ClassVar = {"mse": cosine_mse, "bce": cosine_bce, "cosent": cosent, "info_nce": None}
    bounded_losses = ("mse", "bce")
    loss_inputs = ("embeddings1", "embeddings2")
    score_name = "scores"
    sequences_per_pair = 2

    def tokenise(self, pairs: Any, check: PairCheck, training: bool) -> Any:
        """Token ids of both sentences; for info_nce, views that are tokenised when their turn comes."""
        encoder, args = self.encoder, self.args
        if not (training and args.loss == "info_nce"):
            return tokenised(pairs, self._encode, [SENTENCE_COLUMNS], check, self.token_key)
        if isinstance(pairs, IterableDataset):
            raise InputError(
                "train_dataset: info_nce draws its batches from the whole of it; give a Dataset instead of a stream"
            )
        if args.mlp_head and encoder.pooling != "cls":
            raise InputError(
                f"mlp_head: the head stands on [CLS], but pooling is {encoder.pooling}; set one or the other"
            )
        seed = args.seed if args.data_seed is None else args.data_seed
        views = SentenceViews(pairs, encoder, args.span, seed)
        batch = args.train_batch_size * args.world_size
        if batch < 2:
            raise InputError(
                "per_device_train_batch_size: a pair that is alone in its batch has no negatives; set 2 or more"
            )
        if len(views) < batch:
            raise InputError(
                f"the dataset has {len(views)} pairs, and a batch {batch}; give more, or lower "
                "per_device_train_batch_size"
            )
        return views

    def _encode(self, one: list[str], two: list[str]) -> pa.Table:
        tokens1, tokens2 = map(self.encoder.token_ids, (one, two))
        ids1, ids2 = (tokens.arrow()["input_ids"] for tokens in (tokens1, tokens2))
        lengths = np.maximum(tokens1.lengths, tokens2.lengths)
        return pa.table({"input_ids1": ids1, "input_ids2": ids2, "length": lengths})

    def outputs(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """`scores` (cosines, shape (n,)), and `embeddings1` and `embeddings2` (shape (n, hidden))."""
        one, two = self.encoder.embed(inputs["input_ids"], inputs["attention_mask"], model).chunk(2)
        return {"scores": cosine_similarity(one, two), "embeddings1": one, "embeddings2": two}

    def loss_function(self, embeddings1: Tensor, embeddings2: Tensor, labels: Any) -> Tensor:
        """The mean loss of vectors, shape (n, hidden), and labels, (n,), if there are any; override it at will."""
        if (loss := self.losses[self.args.loss]) is None:
            return in_batch_loss(embeddings1, embeddings2, self.args.temperature, self.args.both_views)
        result: Tensor = loss(embeddings1, embeddings2, labels)
        return result

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the base class; checkpoints of adapters hold no head, so that a training with both cannot go on."""
        if resume_from_checkpoint and self.args.mlp_head and self.peft_config is not None:
            raise InputError(
                "resume_from_checkpoint: a checkpoint of adapters does not hold the head of mlp_head; train from the "
                "start, or set mlp_head=False"
            )
        return super().train(resume_from_checkpoint, *args, **kwargs)

    @contextlib.contextmanager
    def training_context(self) -> Iterator[None]:
        """The computation of a training, with a head on the encoder if `args.mlp_head`."""
        with contextlib.ExitStack() as stack:
            if self.args.loss == "info_nce" and self.args.mlp_head:
                handle = attach_head(self.encoder.model, self.args.seed)
                # FSDP has made one tensor of the head's weights and others; they leave when the encoder is saved.
                if not self.is_fsdp_enabled:
                    stack.callback(detach_head, self.encoder.model, handle)
            stack.enter_context(frozen_pooler(self.encoder.model))
            stack.enter_context(super().training_context())
            yield

    def finish_saved(self, folder: Path) -> None:
        """Take the head, which served training, out of a saved encoder, and put BERT's own pooler in."""
        if self.args.mlp_head:
            drop_saved_head(folder)
        self.encoder.save_pooler(folder)
