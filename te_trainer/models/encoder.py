"""Encoders of either kind: loaded as what their checkpoint is, described, told apart by their weights."""

from __future__ import annotations

import hashlib

import torch

from te_trainer.config.types import Kind, Pooling
from te_trainer.errors import InputError
from te_trainer.models.bi_encoder import BiEncoder
from te_trainer.models.checkpoint import Checkpoint, resolve_checkpoint
from te_trainer.models.cross_encoder import CrossEncoder

Encoder = BiEncoder | CrossEncoder


def check_encoder(
    model: str | Checkpoint, pooling: Pooling | None = None, prompt: str | None = None, max_length: int | None = None
) -> Kind:
    """Refuse what cannot score pairs, before any weights are loaded; say what the checkpoint is."""
    checkpoint = resolve_checkpoint(model)
    if checkpoint.kind == "bi-encoder":
        BiEncoder.check(checkpoint, pooling, max_length=max_length, prompt=prompt)
    else:
        for key, value in (("pooling", pooling), ("prompt", prompt)):
            if value is not None:
                raise InputError(f"{key}: {checkpoint.name} is a cross-encoder, which has none; leave it out")
        CrossEncoder.check(checkpoint, max_length)
    return checkpoint.kind


def load_encoder(
    model: str | Checkpoint,
    *,
    pooling: Pooling | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    attn_implementation: str | None = None,
) -> Encoder:
    """Load a bi-encoder or a cross-encoder, whichever the checkpoint is; what is None is taken from it."""
    checkpoint = resolve_checkpoint(model)
    length = max_length or checkpoint.max_length
    if checkpoint.kind == "cross-encoder":
        return CrossEncoder.from_pretrained(checkpoint, max_length=length, attn_implementation=attn_implementation)
    return BiEncoder.from_pretrained(
        checkpoint, pooling=pooling, max_length=length, prompt=prompt, attn_implementation=attn_implementation
    )


def describe_encoder(encoder: Encoder) -> str:
    """What an encoder is and reads, in a line."""
    if isinstance(encoder, CrossEncoder):
        return f"cross-encoder, {encoder.activation} of its logit, {encoder.max_length:,} tokens of a pair"
    prompt = f", prompt '{encoder.prompt}'" if encoder.prompt else ""
    return f"bi-encoder, {encoder.pooling} pooling, {encoder.max_length:,} tokens of a sentence{prompt}"


def weight_fingerprint(encoder: Encoder) -> str:
    """SHA-256 over the weights, in the order of their names; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
