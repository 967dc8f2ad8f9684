"""The bi-encoder: two sentences, one encoder, and the cosine of their vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from te_trainer.config.types import Kind, Pooling
from te_trainer.errors import InputError
from te_trainer.files.atomic import give_umask_mode
from te_trainer.models.attention import check_attention
from te_trainer.models.checkpoint import Checkpoint, has_pooler, resolve_checkpoint
from te_trainer.models.sentence_files import SentenceLayout, check_vectors, saved_pooling
from te_trainer.models.tokenization import tokenise
from te_trainer.models.tokenizer import save_tokenizer
from te_trainer.models.tokens import Tokens
from te_trainer.models.weights import add_weights, save_model


def pool(hidden: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a sentence out of its token vectors.

    Args:
        hidden: Shape (n, tokens, hidden), any floating dtype.
        attention_mask: Shape (n, tokens), 1 for real tokens.
        pooling: `cls` takes the first real token (the paper's representation), `last` the last one, `mean` averages
            them.

    Returns:
        float32, shape (n, hidden): 16-bit sums would make many cosines equal.
    """
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).float()
        return (hidden.float() * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    # Of equals, argmax gives the first: padding may be on either side.
    position = attention_mask.argmax(1) if pooling == "cls" else attention_mask.cumsum(1).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), position].float()


@dataclass(eq=False)
class BiEncoder:
    """A Hugging Face encoder, its tokenizer, and how to make a sentence's vector with them.

    Args:
        model: Any encoder or decoder with `last_hidden_state`; float32.
        tokenizer: The tokenizer of `model`.
        pooling: `cls`, `mean` or `last`.
        max_length: Tokens of a sentence beyond this are cut (32 in the paper, Table 16); those of the prompt count.
        prompt: Text in front of every sentence.
        layout: What else the checkpoint says to sentence-transformers; it is saved with the encoder.
        pooler: Weights of BERT's own pooler, which is no part of a sentence's vector, by their names in the model that
            `AutoModel` loads; they are saved with the encoder.
        attn_implementation: Attention that trainings and labellings compute with, as transformers names it; None for
            the fastest that is known. It is not saved.
        commit: The commit of the Hub's model that it was loaded from, if it was; a card and an adapter name it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: Pooling = "cls"
    max_length: int = 32
    prompt: str = ""
    layout: SentenceLayout = field(default_factory=SentenceLayout)
    pooler: dict[str, Tensor] = field(default_factory=dict, repr=False)
    attn_implementation: str | None = None
    commit: str | None = None

    kind: ClassVar[Kind] = "bi-encoder"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        check_attention(self.model, self.attn_implementation, "attn_implementation")

    @classmethod
    def from_pretrained(
        cls,
        name: str | Checkpoint,
        *,
        revision: str | None = None,
        pooling: Pooling | None = None,
        max_length: int | None = None,
        prompt: str | None = None,
        from_cross_encoder: bool = False,
        layout: SentenceLayout | None = None,
        attn_implementation: str | None = None,
    ) -> BiEncoder:
        """Load from a Hub id, a local folder or `package:folder`.

        Args:
            name: The model's name, or its checkpoint.
            revision: Branch, tag or commit of a Hub id; `owner/name@revision` says the same. Default: `main`, as it is
                at the first load in this process.
            pooling: None takes what the checkpoint says, else `last` for decoders and `cls` for encoders.
            max_length: Tokens of a sentence beyond this are cut. None takes what a bi-encoder's checkpoint says, and of
                a plain PLM 32 (Table 16).
            prompt: None takes what the checkpoint says, else no text.
            from_cross_encoder: Take the encoder below a cross-encoder's head (sequential distillation).
            layout: None takes what the checkpoint says.
            attn_implementation: Attention to compute with; None for the fastest that is known.

        Raises:
            InputError: No such model, a cross-encoder where none is expected, a tokenizer without padding, weights that
                are not there, a length that the model cannot read, an attention that it cannot use.
        """
        checkpoint = resolve_checkpoint(name, revision)
        pooling = resolve_pooling(checkpoint, pooling, from_cross_encoder)
        if max_length is None:
            of_its_own = bool(checkpoint.layout.modules) and not from_cross_encoder
            max_length = checkpoint.max_length if of_its_own else min(cls.max_length, checkpoint.max_length)
        if layout is None:
            layout = SentenceLayout() if from_cross_encoder else checkpoint.layout
        lower_case = {"do_lower_case": checkpoint.layout.lower_case}
        layout = replace(layout, transformer=layout.transformer | lower_case)
        prompt = layout.prompt if prompt is None else prompt
        check_texts(checkpoint, layout, pooling, prompt)
        with torch.random.fork_rng(devices=[]):
            # a pooler that the checkpoint lacks is always drawn the same
            torch.default_generator.manual_seed(0)
            model, tokenizer = checkpoint.load("bi-encoder", max_length)
        check_prompt(checkpoint, prompt, max_length)
        pooler = _take_pooler(model)
        commit = checkpoint.commit
        return cls(model, tokenizer, pooling, max_length, prompt, layout, pooler, attn_implementation, commit)

    @staticmethod
    def check(
        name: str | Checkpoint,
        pooling: Pooling | None = None,
        *,
        max_length: int | None = None,
        prompt: str | None = None,
        section: str = "",
    ) -> Pooling:
        """Refuse what `from_pretrained` could not load, before any weights are read; give the pooling it will have.

        None stands for what the checkpoint says; `section`, with its dot, is the part of the configuration to name.
        """
        checkpoint = resolve_checkpoint(name)
        pooling = resolve_pooling(checkpoint, pooling, section=section)
        layout = checkpoint.layout
        prompt = layout.prompt if prompt is None else prompt
        check_texts(checkpoint, layout, pooling, prompt)
        checkpoint.check("bi-encoder", max_length, section)
        check_prompt(checkpoint, prompt, checkpoint.max_length if max_length is None else max_length, section)
        return pooling

    @property
    def vector_size(self) -> int:
        """Numbers in a vector; some of OPT's models make them fewer than their layers have."""
        config = self.model.config
        return int(getattr(config, "word_embed_proj_dim", config.hidden_size))

    def token_ids(self, texts: Sequence[str]) -> Tokens:
        """Token ids alone of sentences as the encoder reads them: after its prompt, and cut to its length."""
        tokens = tokenise(self.tokenizer, self.max_length, [self.prompt + text for text in texts])
        return Tokens({"input_ids": tokens.columns["input_ids"]}, tokens.lengths)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, model: torch.nn.Module | None = None) -> Tensor:
        """Vectors of a batch of tokenised sentences.

        Args:
            input_ids, attention_mask: Shape (n, tokens).
            model: The model as a trainer wrapped it; None for the plain one.

        Returns:
            float32, shape (n, hidden).
        """
        # a compiled model has a length that raises, so that it has no truth value
        model = self.model if model is None else model
        output = model(input_ids=input_ids, attention_mask=attention_mask)
        return pool(output.last_hidden_state, attention_mask, self.pooling)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save what `SentenceTransformer(folder)` and `AutoModel.from_pretrained(folder)` load."""
        save_model(self.model, Path(folder))
        self.save_pooler(folder)
        self.save_layout(folder)

    def save_pooler(self, folder: str | Path) -> None:
        """Put the weights of BERT's own pooler beside those that are saved, so that nobody draws new ones."""
        add_weights(Path(folder), self.pooler)
        give_umask_mode(Path(folder))

    def save_layout(self, folder: str | Path) -> None:
        """Everything but the weights, in the layout that sentence-transformers has read since version 2."""
        save_tokenizer(self.tokenizer, Path(folder), model_max_length=self.max_length)
        self.layout.write(
            Path(folder),
            pooling=self.pooling,
            max_length=self.max_length,
            prompt=self.prompt,
            hidden_size=self.vector_size,
        )


def check_pooling(pooling: Pooling | None) -> None:
    """Refuse what is no pooling; None stands for a checkpoint's."""
    if pooling is not None and pooling not in get_args(Pooling):
        raise InputError(f"pooling: '{pooling}' is none of {', '.join(get_args(Pooling))}")


def resolve_pooling(
    checkpoint: Checkpoint, pooling: Pooling | None = None, from_cross_encoder: bool = False, section: str = ""
) -> Pooling:
    """The pooling of a bi-encoder that starts from a checkpoint: the chosen one, else what the checkpoint says."""
    check_pooling(pooling)
    default: Pooling = "last" if checkpoint.is_decoder else "cls"
    if from_cross_encoder:
        return pooling or default
    if checkpoint.kind == "cross-encoder":
        raise checkpoint.files.refusal(
            "a cross-encoder (it has a classification head) where a bi-encoder's start is expected; its sentence "
            "vectors would mean nothing"
        )
    check_vectors(checkpoint.files, checkpoint.layout)
    return pooling or saved_pooling(checkpoint.files, checkpoint.layout, section) or default


def check_texts(checkpoint: Checkpoint, layout: SentenceLayout, pooling: Pooling, prompt: str) -> None:
    """Refuse sentences that the checkpoint reads in a way that a bi-encoder here does not."""
    if prompt and not layout.include_prompt and pooling != "last":
        raise checkpoint.files.refusal(
            "include_prompt of its pooling is false: it pools no token of a prompt, and te_trainer pools all; set "
            "prompt to '', or include_prompt to true in the pooling's config.json"
        )
    if any(checkpoint.tokenizer("a").get("token_type_ids") or []):
        raise checkpoint.files.refusal(
            "its tokenizer gives tokens of a single sentence another type than 0 (as XLNet's does), which a bi-encoder "
            "here does not read; start from another model"
        )


def check_prompt(checkpoint: Checkpoint, prompt: str, max_length: int, section: str = "") -> None:
    """Refuse a prompt that leaves no token for a sentence after it: all vectors would be the same."""
    if prompt and (tokens := len(checkpoint.tokenizer(prompt)["input_ids"])) >= max_length:
        raise InputError(
            f"{section}prompt: its {tokens:,} tokens, special ones included, leave none of {section}max_length "
            f"({max_length:,}) for a sentence of model {checkpoint.name}; raise the latter, or shorten the prompt"
        )


@contextlib.contextmanager
def frozen_pooler(model: PreTrainedModel) -> Iterator[None]:
    """Keep BERT's own pooler out of a training where it is still on the model, which is a user's then.

    DDP waits for a gradient of all that is trained, and a sentence's vector gives the pooler none.
    """
    named = model.named_parameters() if has_pooler(model.config) else ()
    weights = [weight for name, weight in named if weight.requires_grad and "pooler" in name.split(".")]
    for weight in weights:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad = True


def _take_pooler(model: PreTrainedModel) -> dict[str, Tensor]:
    """Take BERT's own pooler off a model, because its weights would stay unused in training; give its weights."""
    pooler: Any = getattr(model, "pooler", None)
    if pooler is None or not has_pooler(model.config):
        return {}
    with contextlib.ExitStack() as stack:
        if is_deepspeed_zero3_enabled():
            import deepspeed

            stack.enter_context(deepspeed.zero.GatheredParameters(list(pooler.parameters())))
        weights = {f"pooler.{key}": weight.detach().cpu().clone() for key, weight in pooler.state_dict().items()}
    setattr(model, "pooler", None)  # noqa: B010 - its type says that it is a module
    return weights
