"""Dropout for CPUs, where drawing torch's own mask can cost as much as a third of the matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS = 4  # numbers of 16 bits in one of 64


class CPUDropout(nn.Dropout):
    """`nn.Dropout` whose mask is made of whole random words: 16 bits decide on one value.

    The probability is rounded to a multiple of 2^-16, and what is kept is scaled by its true share, so that the
    expectation is exact. Elsewhere than on a CPU, and outside of training, it is `nn.Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Shape and dtype of `input`; masks follow from torch's generator."""
        dropped = round(self.p * 2**16)
        if not self.training or input.device.type != "cpu" or not 0 < dropped < 2**16:
            return super().forward(input)
        words = torch.empty(-(-input.numel() // WORDS), dtype=torch.int64).random_(-(2**63), None)
        numbers = words.view(torch.int16)[: input.numel()].view(input.shape)
        # numbers become 0 and 1 in place: as booleans they would take five times as long
        return input * numbers.ge_(dropped - 2**15).to(input.dtype).mul_(2**16 / (2**16 - dropped))


def use_cpu_dropout(model: nn.Module) -> None:
    """Put `CPUDropout` where `nn.Dropout` is; it has no weights, so that checkpoints stay the same."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout and not child.inplace:
                setattr(parent, name, CPUDropout(child.p).train(child.training))
