"""An array that all ranks fill together, each with its share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from accelerate import PartialState


class SharedArray:
    """An array in memory, or in a file that every rank writes its share of.

    Args:
        path: the file, on a disk that all ranks see; None for memory, where there is one rank.
        dtype: numpy's name of it.
    """

    def __init__(self, path: Path | None, shape: tuple[int, ...], state: PartialState, dtype: str = "float32") -> None:
        if path is None:
            self.array: np.ndarray = np.empty(shape, dtype=dtype)
            return
        if state.is_main_process:
            with path.open("wb") as file:
                # A mapped file that finds the disk full while it is written to kills the process; find out before.
                _allocate(file.fileno(), np.dtype(dtype).itemsize * int(np.prod(shape)))
        state.wait_for_everyone()
        self.array = np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def share_of_rank(total: int, state: PartialState) -> tuple[int, int]:
    """Where this rank's share of so many things begins and ends."""
    return (
        total * state.process_index // state.num_processes,
        total * (state.process_index + 1) // state.num_processes,
    )


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
