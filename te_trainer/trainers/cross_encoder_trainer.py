"""Bi-to-cross: a cross-encoder learns pseudo-labels with soft binary cross-entropy (Trans-Encoder, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from transformers import TrainerCallback, set_seed

from te_trainer.encoders import CrossEncoder
from te_trainer.encoders.cross_encoder import Activation
from te_trainer.losses import logit_mse, soft_bce
from te_trainer.metrics import Metric, spearman
from te_trainer.trainers.arguments import CrossEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer, named
from te_trainer.trainers.collators import CrossEncoderCollator
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

    Args:
        model ([`CrossEncoder`] or `str`): the encoder, or what `CrossEncoder.from_pretrained` loads.
        args ([`CrossEncoderTrainingArguments`], *optional*): defaults to the paper's; `both_orders` trains each pair
            in both orders.
        train_dataset (`Dataset`, *optional*): columns `sentence1`, `sentence2`, `label`, usually in [0, 1].
        eval_dataset (`Dataset`, *optional*): the same columns, gold scores on any scale, scored in one order. With it
            the best checkpoint is loaded at the end.
        metric (`Callable`, *optional*, defaults to `spearman`): scores and labels to a number, more is better.
        callbacks (`list`, *optional*): more callbacks.
        peft_config (`peft.PeftConfig`, *optional*): adapters that are trained instead of all weights; checkpoints and
            `save_model` then hold them alone, and `trainer.encoder.model.merge_and_unload()` gives plain weights.

    Example:
        ```python
        trainer = CrossEncoderTrainer("bert-base-uncased", train_dataset=Dataset.from_dict(pairs))
        trainer.train()
        trainer.save_model("cross-encoder")  # sentence_transformers.CrossEncoder("cross-encoder") loads it
        ```
    """

    encoder: CrossEncoder

    def __init__(
        self,
        model: CrossEncoder | str,
        args: CrossEncoderTrainingArguments | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        metric: Metric = spearman,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or CrossEncoderTrainingArguments()
        self.loss_function = named(LOSSES, args.loss)
        if isinstance(model, str):
            # The head is drawn before the Trainer seeds anything.
            set_seed(args.seed)
        encoder = CrossEncoder.from_pretrained(model) if isinstance(model, str) else model
        with args.main_process_first(desc="tokenising"):
            train_dataset, eval_dataset = (
                dataset
                if dataset is None
                else tokenise_pairs(dataset, encoder.tokenizer, encoder.max_length, both_orders)
                for dataset, both_orders in ((train_dataset, args.both_orders), (eval_dataset, False))
            )
        encoder.activate_with(ACTIVATIONS[args.loss])
        super().__init__(
            encoder,
            args,
            train_dataset,
            eval_dataset,
            metric,
            callbacks,
            CrossEncoderCollator(encoder.tokenizer),
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
        """The loss of `args.loss` over the batch; soft BCE (Eq. 2) is the paper's."""
        logits = self._logits(model, inputs)
        loss = self.share(self.loss_function(logits, inputs["labels"]), len(logits), num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Logits, shape (n,); they rank as their sigmoids do, and do not saturate."""
        return self._logits(model, inputs)

    def _logits(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.encoder.logits(model, **{name: value for name, value in inputs.items() if name != "labels"})
