"""The losses of the method, as functions of tensors. Each gives the mean over the batch, in float32.

Embeddings have the shape (n, hidden), logits (n,) or (n, 1), labels (n,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_similarity(embeddings1: Tensor, embeddings2: Tensor) -> Tensor:
    """Cosine of each row of `embeddings1` with the same row of `embeddings2`, in float32, shape (n,)."""
    return F.cosine_similarity(embeddings1.float(), embeddings2.float(), dim=-1)


def cosine_mse(embeddings1: Tensor, embeddings2: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between cosine and pseudo-label, which a cosine can equal in [-1, 1] alone (Eq. 3)."""
    return F.mse_loss(cosine_similarity(embeddings1, embeddings2), labels.float())


def soft_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of raw logits against soft labels (Trans-Encoder, Eq. 2).

    The official code neither clips nor rescales cosines, so labels may lie below 0. No logit meets such a label: the
    loss falls without bound, below 0 too, the lower the logit is.
    """
    return F.binary_cross_entropy_with_logits(logits.float().reshape(labels.shape), labels.float())


def cosine_bce(embeddings1: Tensor, embeddings2: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy with the cosine as the logit: the paper's ablation of Eq. 3 (Table 8).

    Its sigmoid stays between 0.27 and 0.73, so labels near 0 and 1 can never be met.
    """
    return soft_bce(cosine_similarity(embeddings1, embeddings2), labels)


def cosent(embeddings1: Tensor, embeddings2: Tensor, labels: Tensor, scale: float = 20.0) -> Tensor:
    """CoSENT, a loss of order alone (Huang et al. 2024; `CoSENTLoss` of sentence-transformers).

    log(1 + sum of exp(scale * (c_j - c_i)) over all i and j of the batch whose label i is higher than label j), where c
    are cosines. It depends on the batch as a whole, and each rank looks at its own.
    """
    scores = scale * cosine_similarity(embeddings1, embeddings2)
    differences = scores[None, :] - scores[:, None]
    # picking them out instead would make the CPU wait for the GPU, to know how many there are
    differences = differences.masked_fill(labels[:, None] <= labels[None, :], -torch.inf)
    return torch.logsumexp(torch.cat([differences.new_zeros(1), differences.flatten()]), dim=0)


def logit_mse(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error between raw logit and soft label: the paper's ablation of Eq. 2 (Table 8)."""
    return F.mse_loss(logits.float().reshape(labels.shape), labels.float())


def info_nce(
    anchors: Tensor, positives: Tensor, temperature: float, offset: int = 0, anchor_side: Tensor | None = None
) -> Tensor:
    """InfoNCE over cosines with in-batch negatives (Trans-Encoder, Eq. 1; SimCSE, Eq. 1): the mean over the anchors.

    Every positive of another anchor is a negative, so the loss depends on the batch as a whole: four accumulated
    batches of 16 are not one of 64. On several ranks, pass all ranks' vectors as positives.

    Args:
        anchors: Shape (n, hidden).
        positives: Shape (m, hidden), m >= n; row `offset + i` is the positive of anchor i.
        temperature: What cosines are divided by; 0.05 in SimCSE, 0.04 in Mirror-BERT.
        offset: Row of the positive of the first anchor.
        anchor_side: Shape (m, hidden), negatives from the anchors' own side of the batch (Mirror-BERT, Eq. 1); row
            `offset + i` is anchor i itself and does not count.
    """
    # Autocast would multiply in 16 bits, where cosines that differ by less than 0.004 are equal.
    with torch.autocast(anchors.device.type, enabled=False):
        anchors = F.normalize(anchors.float(), dim=-1)
        targets = torch.arange(offset, offset + len(anchors), device=anchors.device)
        logits = anchors @ F.normalize(positives.float(), dim=-1).T
        if anchor_side is not None:
            cosines = anchors @ F.normalize(anchor_side.float(), dim=-1).T
            is_itself = targets.unsqueeze(1) == torch.arange(len(anchor_side), device=anchors.device)
            logits = torch.cat([logits, cosines.masked_fill(is_itself, -torch.inf)], dim=1)
        return F.cross_entropy(logits / temperature, targets)
