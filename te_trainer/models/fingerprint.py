"""A short name for an encoder's weights."""

from __future__ import annotations

import hashlib

import torch

from te_trainer.models import Encoder


def fingerprint(encoder: Encoder) -> str:
    """SHA-256 over the weights, in the order of their names; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, weight in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
