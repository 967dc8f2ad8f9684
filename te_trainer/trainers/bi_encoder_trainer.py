"""Cross-to-bi: a bi-encoder learns pseudo-labels with mean squared error (Trans-Encoder, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from transformers import TrainerCallback

from te_trainer.encoders import BiEncoder
from te_trainer.losses import cosine_bce, cosine_mse, cosine_similarity
from te_trainer.metrics import Metric, spearman
from te_trainer.trainers.arguments import BiEncoderTrainingArguments
from te_trainer.trainers.base import PairTrainer, named
from te_trainer.trainers.collators import BiEncoderCollator
from te_trainer.trainers.tokenise import tokenise_sentences

# The losses by name: a function of both sides' vectors and of the labels.
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"mse": cosine_mse, "bce": cosine_bce}


class BiEncoderTrainer(PairTrainer):
    """Trainer of a bi-encoder: the mean squared error between cosine and label.

    | columns                       | `loss`  | loss                                                            |
    |-------------------------------|---------|-----------------------------------------------------------------|
    | sentence1, sentence2, `label` | `mse`   | mean of (cos(e1, e2) - label)^2 (Eq. 3)                         |
    |                               | `bce`   | binary cross-entropy with cos(e1, e2) as the logit (Table 8)    |

    Both sides of all pairs go through the model in one forward pass.

    Args:
        model ([`BiEncoder`] or `str`): the encoder, or what `BiEncoder.from_pretrained` loads.
        args ([`BiEncoderTrainingArguments`], *optional*): defaults to the paper's.
        train_dataset (`Dataset`, *optional*): columns `sentence1`, `sentence2`, `label` in [-1, 1].
        eval_dataset (`Dataset`, *optional*): the same columns, gold scores on any scale. With it the best checkpoint
            is loaded at the end.
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
        self.loss_function = named(LOSSES, args.loss)
        encoder = BiEncoder.from_pretrained(model) if isinstance(model, str) else model
        with args.main_process_first(desc="tokenising"):
            train_dataset, eval_dataset = (
                dataset
                if dataset is None
                else tokenise_sentences(dataset, encoder.tokenizer, encoder.max_length, encoder.prompt)
                for dataset in (train_dataset, eval_dataset)
            )
        super().__init__(
            encoder,
            args,
            train_dataset,
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
        loss = self.share(self.loss_function(one, two, inputs["labels"]), len(one), num_items_in_batch)
        return (loss, {"scores": cosine_similarity(one, two)}) if return_outputs else loss

    def scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Cosines, shape (n,)."""
        return cosine_similarity(*self._embed(model, inputs))

    def _embed(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        one, two = self.encoder.embed(inputs["input_ids"], inputs["attention_mask"], model).chunk(2)
        return one, two
