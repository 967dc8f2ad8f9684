"""The cross-encoder: both sentences in one input, one logit out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from te_trainer.config.types import Kind
from te_trainer.models.attention import check_attention
from te_trainer.models.checkpoint import Checkpoint, resolve_checkpoint
from te_trainer.models.checkpoint_files import CheckpointFiles
from te_trainer.models.sentence_files import remove_layout, saved_activation
from te_trainer.models.tokenizer import save_tokenizer
from te_trainer.models.weights import save_model

Activation = Literal["sigmoid", "identity"]

# What sentence-transformers reads of a checkpoint's configuration to make scores of logits.
ACTIVATION_CLASSES: dict[Activation, str] = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}


@dataclass(eq=False)
class CrossEncoder:
    """A sequence classifier with one logit, and its tokenizer.

    Args:
        model: An `AutoModelForSequenceClassification` with `num_labels=1`; float32.
        tokenizer: The tokenizer of `model`.
        max_length: Tokens of a pair beyond this are cut from the longer sentence (64 in the paper, Table 16).
        activation: Makes scores of logits: `sigmoid` after training with cross-entropy (the paper's), `identity` after
            training with mean squared error.
        attn_implementation: As of a `BiEncoder`.
        commit: As of a `BiEncoder`.
        shared_with: The `CrossEncoder` of sentence-transformers that `model` is part of; it makes scores as this does.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int = 64
    activation: Activation = "sigmoid"
    attn_implementation: str | None = None
    commit: str | None = None
    shared_with: Any = None

    kind: ClassVar[Kind] = "cross-encoder"

    def __post_init__(self) -> None:
        check_attention(self.model, self.attn_implementation, "attn_implementation")
        full_precision_head(self.model)
        self.activate_with(self.activation)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Checkpoint,
        *,
        revision: str | None = None,
        max_length: int | None = None,
        attn_implementation: str | None = None,
    ) -> CrossEncoder:
        """Load from a Hub id, a local folder or `package:folder`.

        A plain PLM gets a new head, drawn from torch's global generator: call `transformers.set_seed` first.

        Args:
            name: The model's name, or its checkpoint.
            revision: Branch, tag or commit of a Hub id; `owner/name@revision` says the same. Default: `main`, as it is
                at the first load in this process.
            max_length: Tokens of a pair beyond this are cut. None takes what a cross-encoder's checkpoint says, and for
                a plain PLM 64 (Table 16).
            attn_implementation: Attention to compute with; None for the fastest that is known.

        Raises:
            InputError: No such model, a head of more than one logit, scores that are neither sigmoids nor logits, a
                tokenizer without padding, weights that are not there, a length that the model cannot read, an attention
                that it cannot use.
        """
        checkpoint = resolve_checkpoint(name, revision)
        activation = resolve_activation(checkpoint)
        if max_length is None:
            trained = checkpoint.kind == "cross-encoder"
            max_length = checkpoint.max_length if trained else min(cls.max_length, checkpoint.max_length)
        model, tokenizer = checkpoint.load("cross-encoder", max_length)
        return cls(model, tokenizer, max_length, activation, attn_implementation, checkpoint.commit)

    @staticmethod
    def check(name: str | Checkpoint, max_length: int | None = None, section: str = "") -> None:
        """Refuse what `from_pretrained` could not load, before any weights are read.

        None and `section` mean what they mean for `BiEncoder.check`.
        """
        checkpoint = resolve_checkpoint(name)
        resolve_activation(checkpoint)
        checkpoint.check("cross-encoder", max_length, section)

    def activate_with(self, activation: Activation) -> None:
        """Say how logits become scores, in this encoder and in what is saved of it."""
        self.activation = activation
        self.model.config.sentence_transformers = {"activation_fn": ACTIVATION_CLASSES[activation]}
        if self.shared_with is not None:
            self.shared_with.activation_fn = nn.Sigmoid() if activation == "sigmoid" else nn.Identity()

    def logits(self, model: nn.Module | None = None, **inputs: Tensor) -> Tensor:
        """Raw logits of a batch of tokenised pairs.

        Args:
            model: The model as a trainer wrapped it; None for the plain one.
            inputs: What the tokenizer gave, each of shape (n, tokens).

        Returns:
            float32, shape (n,).
        """
        # a compiled model has a length that raises, so that it has no truth value
        model = self.model if model is None else model
        logits: Tensor = model(**inputs).logits
        return logits.float().squeeze(-1)

    def scores(self, **inputs: Tensor) -> Tensor:
        """Scores of a batch of tokenised pairs, as `sentence_transformers.CrossEncoder.predict` gives them.

        Returns:
            float32, shape (n,); in [0, 1] where the activation is `sigmoid`.
        """
        logits = self.logits(None, **inputs)
        return torch.sigmoid(logits) if self.activation == "sigmoid" else logits

    def save_pretrained(self, folder: str | Path) -> None:
        """Save what `sentence_transformers.CrossEncoder(folder)` and transformers load."""
        self.activate_with(self.activation)
        save_model(self.model, Path(folder))
        self.save_layout(folder)

    def save_layout(self, folder: str | Path) -> None:
        """Everything but the weights; sentence-transformers takes the length from the tokenizer."""
        remove_layout(Path(folder))
        # with a template, sentence-transformers would make a chat of each pair
        save_tokenizer(self.tokenizer, Path(folder), model_max_length=self.max_length, chat_template=None)


def full_precision_head(model: PreTrainedModel) -> None:
    """Compute the last linear layer in float32, also under autocast.

    In bfloat16 a logit has 8 significant bits, so that thousands of pairs share a score; ranks, and with them
    Spearman's rho, would suffer.
    """
    heads = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if heads:
        heads[-1].register_forward_hook(_in_float32)


def _in_float32(head: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
    if output.dtype == torch.float32:
        return None
    with torch.autocast(output.device.type, enabled=False):
        return F.linear(inputs[0].float(), head.weight.float(), None if head.bias is None else head.bias.float())


def resolve_activation(checkpoint: Checkpoint) -> Activation:
    """How a cross-encoder that starts from a checkpoint makes scores of its logits; refused where it can start none."""
    config, trained = checkpoint.config, checkpoint.kind == "cross-encoder"
    if trained and config.num_labels != 1:
        raise checkpoint.files.refusal(
            f"a classifier of {config.num_labels} labels where a plain PLM or a cross-encoder with one logit is "
            "expected; name the plain PLM that it was made of"
        )
    refuse_blind_classifier(checkpoint.files, config)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise checkpoint.files.refusal(
            f"transformers has no classifier of type {config.model_type}; name another one in models.cross_encoder"
        )
    return saved_activation(checkpoint.files, checkpoint.layout, config) if trained else "sigmoid"


def refuse_blind_classifier(files: CheckpointFiles, config: PretrainedConfig) -> None:
    """Refuse a BERT that is told to be a decoder: its classifier reads the first token, which sees no other."""
    if getattr(config, "is_decoder", False) and type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        raise files.refusal(
            f"with is_decoder in config.json, the first token of a {config.model_type}, which its classifier reads, "
            "sees no other; set is_decoder to false there, or name another one in models.cross_encoder"
        )
