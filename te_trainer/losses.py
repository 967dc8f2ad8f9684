"""The losses of the method, as functions of tensors. Each gives the mean over the batch, in float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosine_similarity(embeddings1: Tensor, embeddings2: Tensor) -> Tensor:
    """Cosine of each row with its partner.

    Args:
        embeddings1, embeddings2: shape (n, hidden).

    Returns:
        float32, shape (n,).
    """
    return F.cosine_similarity(embeddings1.float(), embeddings2.float(), dim=-1)


def cosine_mse(embeddings1: Tensor, embeddings2: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between cosine and pseudo-label (Trans-Encoder, Eq. 3).

    Args:
        embeddings1, embeddings2: shape (n, hidden).
        labels: shape (n,), the cross-encoder's scores.
    """
    return F.mse_loss(cosine_similarity(embeddings1, embeddings2), labels.float())


def soft_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of raw logits against soft labels (Trans-Encoder, Eq. 2).

    Labels are cosines as they are: the official code neither clips nor rescales them, so they may lie below 0.

    Args:
        logits: shape (n,) or (n, 1).
        labels: shape (n,), the bi-encoder's cosines.
    """
    return F.binary_cross_entropy_with_logits(logits.float().reshape(labels.shape), labels.float())


def cosine_bce(embeddings1: Tensor, embeddings2: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy with the cosine as the logit: the paper's ablation of Eq. 3 (Table 8).

    Its sigmoid stays between 0.27 and 0.73, so labels near 0 and 1 can never be met.

    Args:
        embeddings1, embeddings2: shape (n, hidden).
        labels: shape (n,), the cross-encoder's scores.
    """
    return soft_bce(cosine_similarity(embeddings1, embeddings2), labels)


def logit_mse(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between raw logit and soft label: the paper's ablation of Eq. 2 (Table 8).

    Args:
        logits: shape (n,) or (n, 1).
        labels: shape (n,), the bi-encoder's cosines.
    """
    return F.mse_loss(logits.float().reshape(labels.shape), labels.float())
