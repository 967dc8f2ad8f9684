"""The bi-encoder: two sentences, one encoder, and the cosine of their vectors."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import MODEL_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from te_trainer.config.schema import Kind, Pooling
from te_trainer.errors import InputError
from te_trainer.files.atomic import give_umask_mode
from te_trainer.models.checkpoint import (
    PROBE,
    checkpoint_kind,
    load_config,
    load_model,
    load_tokenizer,
    max_length_of_model,
)
from te_trainer.models.decoders import is_decoder, prepare_model
from te_trainer.models.layout import SentenceLayout, model_folder, read_layout, saved_lower_case, saved_pooling
from te_trainer.models.limits import check_length, check_vocabulary
from te_trainer.models.locate import with_revision
from te_trainer.models.weights import add_weights, check_weights


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a sentence out of its token vectors.

    Args:
        hidden: shape (n, tokens, hidden), any floating dtype.
        attention_mask: shape (n, tokens), 1 for real tokens.
        pooling: `cls` takes the first real token (the paper's representation), `last` the last one, `mean` averages
            them.

    Returns:
        float32, shape (n, hidden): 16-bit sums would make many cosines equal.
    """
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).float()
        return (hidden.float() * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    # Of equals, argmax finds the first: padding may be on either side.
    place = attention_mask.argmax(1) if pooling == "cls" else attention_mask.cumsum(1).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place].float()


@dataclass
class BiEncoder:
    """A Hugging Face encoder, its tokenizer, and how to make a sentence's vector with them.

    Args:
        model: any encoder or decoder with `last_hidden_state`; float32.
        tokenizer: the tokenizer of `model`.
        pooling: `cls`, `mean` or `last`.
        max_length: tokens of a sentence beyond this are cut (32 in the paper, Table 16); those of the prompt count.
        prompt: text in front of every sentence.
        layout: what else the checkpoint says to sentence-transformers; it is saved with the encoder.
        pooler: weights of BERT's own pooler, which is no part of a sentence's vector, by their names in the model that
            `AutoModel` loads; they are saved with the encoder.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: Pooling = "cls"
    max_length: int = 32
    prompt: str = ""
    layout: SentenceLayout = field(default_factory=SentenceLayout)
    pooler: dict[str, Tensor] = field(default_factory=dict, repr=False)

    kind: ClassVar[Kind] = "bi-encoder"

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        pooling: Pooling | None = None,
        max_length: int = 32,
        prompt: str | None = None,
        from_cross_encoder: bool = False,
        layout: SentenceLayout | None = None,
    ) -> BiEncoder:
        """Load from a Hub id, a local folder or `package:folder`.

        Args:
            revision: of a Hub id, a branch, a tag or a commit; `owner/name@revision` says the same. Default: `main`, as
                it is at the first load in this process.
            pooling: None takes what the checkpoint says, else `last` for decoders and `cls` for encoders.
            prompt: None takes what the checkpoint says, else no text.
            from_cross_encoder: take the encoder below a cross-encoder's head (sequential distillation).
            layout: None takes what the checkpoint says.

        Raises:
            InputError: no such model, a cross-encoder where none is expected, a tokenizer without padding, weights that
                are not there, a length that the model cannot read.
        """
        name = with_revision(name, revision)
        pooling = resolve_pooling(name, pooling, from_cross_encoder)
        if layout is None:
            layout = SentenceLayout() if from_cross_encoder else read_layout(name)
        layout = replace(layout, lower_case=saved_lower_case(name))
        prompt = layout.prompt if prompt is None else prompt
        _refuse_excluded_prompt(name, layout, pooling, prompt)
        with _own_draws():
            model = load_model(AutoModel, name)
        tokenizer = load_tokenizer(name)
        _refuse_token_types(name, tokenizer)
        check_length(name, model, tokenizer, max_length, "max_length", sides=1)
        check_vocabulary(name, model, tokenizer)
        if is_decoder(model.config):
            prepare_model(model, tokenizer)
        return cls(model, tokenizer, pooling, max_length, prompt, layout, _take_pooler(model))

    def embed(self, input_ids: Tensor, attention_mask: Tensor, model: torch.nn.Module | None = None) -> Tensor:
        """Vectors of a batch of tokenised sentences.

        Args:
            input_ids, attention_mask: shape (n, tokens).
            model: the model as a trainer wrapped it; None for the plain one.

        Returns:
            float32, shape (n, hidden).
        """
        # a compiled model has a length that raises, so that it has no truth value
        model = self.model if model is None else model
        output = model(input_ids=input_ids, attention_mask=attention_mask)
        return pool(output.last_hidden_state, attention_mask, self.pooling)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save what `SentenceTransformer(folder)` and `AutoModel.from_pretrained(folder)` load."""
        self.model.save_pretrained(folder)
        self.save_pooler(folder)
        self.save_layout(folder)

    def save_pooler(self, folder: str | Path) -> None:
        """Put the weights of BERT's own pooler beside those that are saved, so that nobody draws new ones."""
        add_weights(Path(folder), self.pooler)
        give_umask_mode(Path(folder))

    def save_layout(self, folder: str | Path) -> None:
        """Everything but the weights: tokenizer, pooling and the list of modules.

        The files follow the layout that sentence-transformers has read since version 2.
        """
        self.tokenizer.model_max_length = self.max_length
        self.tokenizer.save_pretrained(folder)
        give_umask_mode(Path(folder))
        self.layout.write(
            Path(folder),
            pooling=self.pooling,
            max_length=self.max_length,
            prompt=self.prompt,
            hidden_size=self.model.config.hidden_size,
        )


def without_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """What `AutoModel` must be told: BERT's own pooler is no part of a sentence's vector, and would stay unused."""
    model_class: Any = MODEL_MAPPING[type(config)]
    takes = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def check_bi_encoder(
    name: str,
    pooling: Pooling | None = None,
    key: str = "pooling",
    *,
    max_length: int | None = None,
    length_key: str = "max_length",
    prompt: str | None = None,
) -> Pooling:
    """Refuse what cannot start a bi-encoder, before its weights are read; give the pooling it will have.

    Args:
        key: of the configuration, that chooses the pooling.
        max_length: tokens of a sentence; None for what the checkpoint says.
        length_key: of the configuration, that chooses `max_length`.
        prompt: None for what the checkpoint says.
    """
    pooling = resolve_pooling(name, pooling, key=key)
    layout = read_layout(name)
    _refuse_excluded_prompt(name, layout, pooling, layout.prompt if prompt is None else prompt)
    tokenizer = load_tokenizer(name)
    _refuse_token_types(name, tokenizer)
    # last: the weights of a Hub model are large, and may have to be downloaded first
    model = check_weights(name, AutoModel, model_folder(name, weights=True), load_config(name), new_head=False)
    check_vocabulary(name, model, tokenizer)
    if max_length is None:
        max_length = max_length_of_model(name, model, tokenizer)
    check_length(name, model, tokenizer, max_length, length_key, sides=1)
    return pooling


def resolve_pooling(
    name: str, pooling: Pooling | None = None, from_cross_encoder: bool = False, key: str = "pooling"
) -> Pooling:
    """The pooling of a bi-encoder that starts from a checkpoint: the given one, else what the checkpoint says.

    Raises:
        InputError: the checkpoint is a cross-encoder's, or it pools in a way of its own.
    """
    config = load_config(name)
    if checkpoint_kind(config) == "cross-encoder" and not from_cross_encoder:
        raise InputError(
            f"model {name}: a cross-encoder (it has a classification head) where a bi-encoder's start is expected; "
            "its sentence vectors would mean nothing"
        )
    default: Pooling = "last" if is_decoder(config) else "cls"
    return pooling or (None if from_cross_encoder else saved_pooling(name, key)) or default


def _refuse_excluded_prompt(name: str, layout: SentenceLayout, pooling: Pooling, prompt: str) -> None:
    if prompt and not layout.include_prompt and pooling != "last":
        raise InputError(
            f"model {name}: include_prompt of its pooling is false: it pools no token of a prompt, and te_trainer "
            "pools all; set prompt to '', or include_prompt to true in the pooling's config.json"
        )


def _refuse_token_types(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if any(tokenizer(PROBE).get("token_type_ids") or []):
        raise InputError(
            f"model {name}: its tokenizer gives tokens of a single sentence another type than 0 (as XLNet's does), "
            "which a bi-encoder here does not read; start from another model"
        )


@contextlib.contextmanager
def _own_draws() -> Iterator[None]:
    """Let a pooler that a checkpoint lacks be drawn always the same, and take nothing from torch's generator."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _take_pooler(model: PreTrainedModel) -> dict[str, Tensor]:
    """Take BERT's own pooler off a model, because its weights would stay unused in training; give its weights."""
    pooler: Any = getattr(model, "pooler", None)
    if pooler is None or not without_pooler(model.config):
        return {}
    with _gathered(pooler):
        weights = {f"pooler.{key}": weight.detach().cpu().clone() for key, weight in pooler.state_dict().items()}
    setattr(model, "pooler", None)  # noqa: B010 - its type says that it is a module
    return weights


def _gathered(module: torch.nn.Module) -> contextlib.AbstractContextManager[Any]:
    if not is_deepspeed_zero3_enabled():
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(module.parameters()))
