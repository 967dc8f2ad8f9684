"""Encoders to use rather than to train: what a checkpoint is, and all that it says of itself."""

from __future__ import annotations

from te_trainer.config.schema import Kind, Pooling
from te_trainer.errors import InputError
from te_trainer.models.bi_encoder import BiEncoder, check_bi_encoder
from te_trainer.models.checkpoint import checkpoint_kind, load_config, saved_max_length
from te_trainer.models.cross_encoder import CrossEncoder, check_cross_encoder


def check_trained(
    name: str, pooling: Pooling | None = None, prompt: str | None = None, max_length: int | None = None
) -> Kind:
    """Refuse what cannot score pairs, before any weights are loaded; say what the checkpoint is.

    Raises:
        InputError: no such model, or one that cannot be used; a pooling or a prompt for a cross-encoder.
    """
    if checkpoint_kind(load_config(name)) == "encoder":
        check_bi_encoder(name, pooling, max_length=max_length, prompt=prompt)
        return "bi-encoder"
    for key, value in (("pooling", pooling), ("prompt", prompt)):
        if value is not None:
            raise InputError(f"{key}: {name} is a cross-encoder, which has none; leave it out")
    check_cross_encoder(name, max_length)
    return "cross-encoder"


def load_trained(
    name: str, *, pooling: Pooling | None = None, max_length: int | None = None, prompt: str | None = None
) -> BiEncoder | CrossEncoder:
    """Load a bi-encoder or a cross-encoder, whichever the checkpoint is; what is None is taken from it.

    Raises:
        InputError: as `check_trained`, or the weights cannot be loaded.
    """
    length = max_length or saved_max_length(name)
    if checkpoint_kind(load_config(name)) == "cross-encoder":
        return CrossEncoder.from_pretrained(name, max_length=length)
    return BiEncoder.from_pretrained(name, pooling=pooling, max_length=length, prompt=prompt)


def describe(encoder: BiEncoder | CrossEncoder) -> str:
    """What an encoder is, in a line."""
    if isinstance(encoder, CrossEncoder):
        return f"cross-encoder, {encoder.activation} of its logit, {encoder.max_length:,} tokens of a pair"
    prompt = f", prompt '{encoder.prompt}'" if encoder.prompt else ""
    return f"bi-encoder, {encoder.pooling} pooling, {encoder.max_length:,} tokens of a sentence{prompt}"
