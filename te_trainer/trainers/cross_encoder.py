"""Bi-to-cross: a cross-encoder learns pseudo-labels with soft binary cross-entropy (Trans-Encoder, section 2.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
from torch import Tensor, nn

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.errors import InputError
from te_trainer.losses import logit_mse, soft_bce
from te_trainer.models import CrossEncoder
from te_trainer.models.collation import CrossEncoderCollator
from te_trainer.models.cross_encoder import Activation
from te_trainer.models.tokenization import tokenise
from te_trainer.trainers.arguments import CrossEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer
from te_trainer.trainers.datasets import PairCheck, tokenised

# The activation that makes scores of logits that were trained with a loss.
ACTIVATIONS: dict[str, Activation] = {"bce": "sigmoid", "mse": "identity"}


class CrossEncoderTrainer(PairTrainer):
    """Trainer of a cross-encoder: soft binary cross-entropy between raw logit and label.

    | columns                       | `loss`  | loss                                                                  |
    |-------------------------------|---------|-----------------------------------------------------------------------|
    | sentence1, sentence2, `label` | `bce`   | -mean of label log s(x) + (1 - label) log(1 - s(x)), x logit (Eq. 2)  |
    |                               | `mse`   | mean of (x - label)^2 (Table 8)                                       |

    The encoder's activation follows the loss: its score is s(x) after `bce`, x after `mse`.

    Labels of `bce` lie in [-1, 1]: probabilities, or cosines as they are, as in the official code. One below 0 draws
    the logit down without bound, and makes the loss negative where the logit follows. Labels of `mse` are any numbers.

    `model` may be a [`CrossEncoder`], a name, a folder, a `sentence_transformers.CrossEncoder`, or a `PreTrainedModel`
    (of `AutoModelForSequenceClassification`, one label) with `processing_class`, which reads 64 tokens of a pair.
    `args.both_orders` trains each pair in both orders; evaluation reads one. Predictions are logits, which rank as
    their sigmoids do, and do not saturate.

    Example:
        ```python
        trainer = CrossEncoderTrainer("bert-base-uncased", train_dataset=Dataset.from_dict(pairs))
        trainer.train()
        trainer.save_model("cross-encoder")  # sentence_transformers.CrossEncoder("cross-encoder") loads it
        ```
    """

    encoder: CrossEncoder
    args: CrossEncoderTrainingArguments
    encoder_class = CrossEncoder
    arguments_class = CrossEncoderTrainingArguments
    collator_class = CrossEncoderCollator
    losses: ClassVar = {"bce": soft_bce, "mse": logit_mse}
    bounded_losses = ("bce",)
    loss_inputs = ("logits",)
    score_name = "logits"
    sequences_per_pair = 1

    def tokenise(self, pairs: Any, check: PairCheck, training: bool) -> Any:
        """Token ids of pairs; in both orders for training, if `args.both_orders`."""
        tokenizer, max_length = self.encoder.tokenizer, self.encoder.max_length

        def encode(one: list[str], two: list[str]) -> pa.Table:
            tokens = tokenise(tokenizer, max_length, one, two)
            return pa.table({**tokens.arrow(), "length": tokens.lengths})

        both_orders = training and self.args.both_orders
        orders = [SENTENCE_COLUMNS, *([SENTENCE_COLUMNS[::-1]] if both_orders else [])]
        return tokenised(pairs, encode, orders, check, self.token_key)

    def _prepare_encoder(self) -> None:
        # an encoder that is evaluated alone stays what it is, and so does one that a loss of the user's own trains
        if self.train_dataset is not None and not self.has_custom_loss():
            self.encoder.activate_with(ACTIVATIONS[self.args.loss])
        adapters: Any = self.peft_config
        if adapters is not None and adapters.task_type != "SEQ_CLS" and not getattr(adapters, "modules_to_save", None):
            raise InputError(
                "peft_config: it leaves the head, which makes the score, untrained and unsaved; set task_type='SEQ_CLS'"
            )
        super()._prepare_encoder()

    @contextlib.contextmanager
    def training_context(self) -> Iterator[None]:
        """The computation of a training, from which on scores are made as the loss learns them."""
        if not self.has_custom_loss():
            self.encoder.activate_with(ACTIVATIONS[self.args.loss])
        with super().training_context():
            yield

    def outputs(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """`logits`, shape (n,)."""
        tokens = {name: value for name, value in inputs.items() if name != "labels"}
        return {"logits": self.encoder.logits(model, **tokens)}

    def loss_function(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of logits and labels, shape (n,); override it at will."""
        loss: Tensor = self.losses[self.args.loss](logits, labels)
        return loss
