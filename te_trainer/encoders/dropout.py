"""Dropout for CPUs, where drawing torch's own mask can cost as much as a third of the matrix products."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

WORDS = 4  # numbers of 16 bits in one of 64


def dropout_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor | None:
    """What values on a CPU are multiplied with: 0 with probability `p`, else what keeps their expectation.

    It is made of whole random words of a generator that torch's seeds: 16 bits decide on one value. The probability is
    rounded to a multiple of 2^-16, and what is kept is scaled by its true share.

    Returns:
        shape `shape`; None where the rounded probability is 0.
    """
    dropped = round(p * 2**16)
    if not dropped:
        return None
    if dropped == 2**16:
        return torch.zeros(shape, dtype=dtype)
    # twice as fast as torch's own
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, ()))))
    words = generator.integers(2**64 - 1, size=-(-shape.numel() // WORDS), dtype=np.uint64, endpoint=True)
    numbers = torch.from_numpy(words.view(np.int16))[: shape.numel()].view(shape)
    # numbers become 0 and 1 in place: as booleans they would take five times as long
    return numbers.ge_(dropped - 2**15).to(dtype).mul_(2**16 / (2**16 - dropped))


class CPUDropout(nn.Dropout):
    """`nn.Dropout` with `dropout_mask`; elsewhere than on a CPU, and outside of training, it is `nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape and dtype of `input`; masks follow from torch's generator."""
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        mask = dropout_mask(input.shape, self.p, input.dtype)
        return input if mask is None else input * mask


def use_cpu_dropout(model: nn.Module) -> None:
    """Put `CPUDropout` where `nn.Dropout` is; it has no weights, so that checkpoints stay the same."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout and not child.inplace:
                setattr(parent, name, CPUDropout(child.p).train(child.training))
