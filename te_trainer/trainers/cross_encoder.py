"""Bi-to-cross: a cross-encoder learns pseudo-labels with soft binary cross-entropy (Trans-Encoder, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from te_trainer.losses import logit_mse, soft_bce
from te_trainer.models import CrossEncoder
from te_trainer.models.collation import CrossEncoderCollator
from te_trainer.models.cross_encoder import Activation
from te_trainer.trainers.arguments import CrossEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer
from te_trainer.trainers.datasets import PairCheck
from te_trainer.trainers.tokenise import tokenise_pairs

# The losses by name: a function of logits and labels, and what makes scores of the logits it has trained.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bce": soft_bce, "mse": logit_mse}
ACTIVATIONS: dict[str, Activation] = {"bce": "sigmoid", "mse": "identity"}


class CrossEncoderTrainer(PairTrainer):
    """Trainer of a cross-encoder: soft binary cross-entropy between raw logit and label.

    | columns                       | `loss`  | loss                                                                  |
    |-------------------------------|---------|-----------------------------------------------------------------------|
    | sentence1, sentence2, `label` | `bce`   | -mean of label log s(x) + (1 - label) log(1 - s(x)), x logit (Eq. 2)  |
    |                               | `mse`   | mean of (x - label)^2 (Table 8)                                       |

    The encoder's activation follows the loss: its score is s(x) after `bce`, x after `mse`.

    Labels of `bce` are probabilities, or cosines as they are, as in the official code: one below 0 draws the logit down
    without bound, and makes the loss negative where the logit follows. Labels of `mse` are any numbers.

    What `Trainer` has besides is here as well: `evaluate` and `predict` take pairs, and give logits in their order;
    `docs/trainers.md` shows them, and losses of your own.

    Args:
        model ([`CrossEncoder`], `str`, `Path`, `sentence_transformers.CrossEncoder` or `PreTrainedModel`): what is
            trained. A name is loaded by `CrossEncoder.from_pretrained`; a `PreTrainedModel` (of
            `AutoModelForSequenceClassification`, one label) needs `processing_class`, and pairs are cut at 64 tokens.
        args ([`CrossEncoderTrainingArguments`] or `TrainingArguments`, *optional*): defaults to the paper's;
            `both_orders` trains each pair in both orders. All values of plain `TrainingArguments` are taken as
            they are.
        train_dataset (`Dataset`, `IterableDataset` or `list[dict]`, *optional*): columns `sentence1`, `sentence2`,
            `label`. Labels of bce lie in [-1, 1]; others are refused, unless `check_labels` is False. An
            `IterableDataset` needs `args.max_steps`.
        eval_dataset (`Dataset`, `list[dict]` or a `dict` of these, *optional*): the same columns, gold scores on any
            scale, scored in one order. With it the best checkpoint is loaded at the end. Of several sets the metrics
            are named `eval_NAME_spearman`, and the first one chooses, unless `args.metric_for_best_model` does. Where
            all labels of a set may be those of the loss, there is an `eval_loss` too.
        metric (`Callable`, *optional*, defaults to `spearman`): scores and labels to a number, more is better unless
            `args.greater_is_better` is False.
        callbacks (`list`, *optional*): more callbacks.
        peft_config (`peft.PeftConfig`, *optional*): adapters that are trained instead of all weights; checkpoints and
            `save_model` then hold them alone, and `trainer.encoder.model.merge_and_unload()` gives plain weights.
        data_collator (`Callable`, *optional*): makes batches as [`CrossEncoderCollator`] does, out of rows with the
            columns that the tokenizer gives and `label`.
        processing_class (`PreTrainedTokenizerBase`, *optional*): the tokenizer of `model`.
        model_init (`Callable`, *optional*): gives the model anew for each training, instead of `model`.
        compute_loss_func (`Callable`, *optional*): called as `f(outputs, labels, num_items_in_batch=...)` instead of
            `args.loss`, which then says only how scores are made of logits. `outputs` holds `logits`, shape (n,);
            `num_items_in_batch` is the number of pairs in the optimiser step, by which a sum is to be divided, and None
            in evaluation.
        compute_metrics (`Callable`, *optional*): called with an `EvalPrediction` of logits and labels, in the order of
            the data set, instead of `metric`. With it the best checkpoint is loaded where `metric_for_best_model` says
            by which metric.
        check_labels (`bool`, *optional*, defaults to `True`): refuse labels that `args.loss` cannot mean.

    Raises:
        InputError: what is given cannot be used; the message names the argument, and the row and column.

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
    losses: ClassVar = LOSSES
    bounded_losses = ("bce",)
    score_name = "logits"

    def tokenise(self, pairs: Any, check: PairCheck, training: bool) -> Any:
        """Token ids of pairs; in both orders for training, if `args.both_orders`."""
        encoder = self.encoder
        both_orders = training and self.args.both_orders
        return tokenise_pairs(pairs, encoder.tokenizer, encoder.max_length, both_orders, check, numbered=not training)

    def _prepare_encoder(self) -> None:
        self.encoder.activate_with(ACTIVATIONS[self.args.loss])
        super()._prepare_encoder()

    def loss_function(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch; override it for a loss of your own.

        Args:
            logits, labels: shape (n,).
        """
        return LOSSES[self.args.loss](logits, labels)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss over the batch, and with `return_outputs` what a `compute_loss_func` is given.

        It is `compute_loss_func`'s where there is one, else `loss_function`'s; soft BCE (Eq. 2) is the paper's.
        """
        outputs = {"logits": self._logits(model, inputs)}
        labels = inputs["labels"]
        if self.compute_loss_func is not None:
            loss = self.custom_loss(outputs, labels, num_items_in_batch)
        else:
            logits = outputs["logits"]
            loss = self.scale_loss_for_step(self.loss_function(logits, labels), len(logits), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Logits, shape (n,); they rank as their sigmoids do, and do not saturate."""
        return self._logits(model, inputs)

    def _logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.encoder.logits(model, **{name: value for name, value in inputs.items() if name != "labels"})
