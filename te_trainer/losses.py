"""The losses of the method, as functions of tensors. Each gives the mean over the batch, in float32."""

from __future__ import annotations

import torch
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
        labels: shape (n,), the cross-encoder's scores; a cosine meets those in [-1, 1] alone, and the trainers refuse
            others.
    """
    return F.mse_loss(cosine_similarity(embeddings1, embeddings2), labels.float())


def soft_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of raw logits against soft labels (Trans-Encoder, Eq. 2).

    Labels are cosines as they are: the official code neither clips nor rescales them, so they may lie below 0. Such a
    label has no logit that meets it: the loss falls the further the logit goes down, below 0 too. Labels outside of
    [-1, 1] mean nothing here, and the trainers refuse them.

    Args:
        logits: shape (n,) or (n, 1).
        labels: shape (n,), in [-1, 1]: the bi-encoder's cosines, or probabilities.
    """
    return F.binary_cross_entropy_with_logits(logits.float().reshape(labels.shape), labels.float())


def cosine_bce(embeddings1: Tensor, embeddings2: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy with the cosine as the logit: the paper's ablation of Eq. 3 (Table 8).

    Its sigmoid stays between 0.27 and 0.73, so labels near 0 and 1 can never be met.

    Args:
        embeddings1, embeddings2: shape (n, hidden).
        labels: shape (n,), in [-1, 1]: the cross-encoder's scores, or cosines as for `soft_bce`.
    """
    return soft_bce(cosine_similarity(embeddings1, embeddings2), labels)


def logit_mse(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between raw logit and soft label: the paper's ablation of Eq. 2 (Table 8).

    Args:
        logits: shape (n,) or (n, 1).
        labels: shape (n,), the bi-encoder's cosines, or any numbers: a logit has no bounds.
    """
    return F.mse_loss(logits.float().reshape(labels.shape), labels.float())


def info_nce(
    anchors: Tensor, positives: Tensor, temperature: float, own: int = 0, others: Tensor | None = None
) -> Tensor:
    """InfoNCE over cosines with in-batch negatives (Trans-Encoder, Eq. 1; SimCSE, Eq. 1): the mean over the anchors.

    Every positive that is not an anchor's own is its negative, so the loss depends on the batch as a whole: four
    accumulated batches of 16 are not one of 64. On several ranks, give all ranks' vectors as candidates.

    Args:
        anchors: shape (n, hidden).
        positives: shape (m, hidden), m >= n; row `own + i` is the positive of anchor i.
        temperature: what cosines are divided by; 0.05 in SimCSE, 0.04 in Mirror-BERT.
        own: where the positives of these anchors begin.
        others: shape (m, hidden), more negatives: row `own + i` is anchor i itself and does not count. Mirror-BERT
            (its Eq. 1) takes the anchors' own side of the batch too.

    Returns:
        float32, a scalar.
    """
    # Autocast would multiply in 16 bits, where cosines that differ by less than 0.004 are equal.
    with torch.autocast(anchors.device.type, enabled=False):
        anchors = F.normalize(anchors.float(), dim=-1)
        targets = torch.arange(own, own + len(anchors), device=anchors.device)
        logits = anchors @ F.normalize(positives.float(), dim=-1).T
        if others is not None:
            more = anchors @ F.normalize(others.float(), dim=-1).T
            itself = targets.unsqueeze(1) == torch.arange(len(others), device=anchors.device)
            logits = torch.cat([logits, more.masked_fill(itself, -torch.inf)], dim=1)
        return F.cross_entropy(logits / temperature, targets)
