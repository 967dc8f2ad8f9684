"""Dropout for CPUs, where drawing torch's own mask can cost as much as a third of the matrix products."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def dropout_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor | None:
    """What values on a CPU are multiplied with, of shape `shape`: 0 with probability `p`, else 1 / (1 - p); None for no
    `p`.

    It is made of whole 64-bit numbers of a generator that torch's seeds: 8 bits decide on one value. So a mask drops a
    multiple of 1/256 of its values; which of the two that lie next to `p` is drawn too, and `p` is the mean.
    """
    if not p:
        return None
    # twice as fast as torch's own
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, ()))))
    dropped = int(p * 256 + generator.random())
    if dropped == 256:
        return torch.zeros(shape, dtype=dtype)
    drawn = generator.integers(2**64 - 1, size=-(-shape.numel() // 8), dtype=np.uint64, endpoint=True)
    numbers = torch.from_numpy(drawn.view(np.uint8))[: shape.numel()].view(shape)
    # 0 or 1, times the bits of a float, is 0 or this float: a third of the time of converting and scaling
    integer = INTEGERS[dtype.itemsize]
    scale = torch.tensor(1 / (1 - p), dtype=dtype).view(integer).item()
    return numbers.ge_(dropped).to(integer).mul_(scale).view(dtype)


class CPUDropout(nn.Dropout):
    """`nn.Dropout` with `dropout_mask`; elsewhere than on a CPU, and outside of training, it is `nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape and dtype of `input`; masks follow from torch's generator."""
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        mask = dropout_mask(input.shape, self.p, input.dtype)
        return input if mask is None else input * mask


@contextlib.contextmanager
def cpu_dropout(model: nn.Module) -> Iterator[None]:
    """Within the block, every `nn.Dropout` of a model is a `CPUDropout`; blocks may lie within one another."""
    # a class alone: what holds or hooks these modules need not know
    replaced = [module for module in model.modules() if type(module) is nn.Dropout and not module.inplace]
    for module in replaced:
        module.__class__ = CPUDropout
    try:
        yield
    finally:
        for module in replaced:
            module.__class__ = nn.Dropout
