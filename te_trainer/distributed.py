"""The processes of a run: who they are, how long they wait, and what they share."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from te_trainer.build_locks import remove_dead_build_locks
from te_trainer.compat import name_barriers_no_device, spare_extension_of_inference
from te_trainer.config.defaults import DDP_TIMEOUT
from te_trainer.cores import use_no_more_threads_than_cores
from te_trainer.errors import InputError

Answer = TypeVar("Answer")

RESTARTED = "TE_TRAINER_RESTARTED"


def device_type() -> str:
    """Type of the device that this process computes on, as torch names it: `cpu`, `cuda`, `xpu`, `npu`, `mps`, ...

    The settings of accelerate (`accelerate launch --cpu`, or `use_cpu: true` in its configuration) take precedence over
    the hardware. Labelling and training ask this function alone, so that they always choose the same device.
    """
    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return "cpu"
    if device := os.environ.get("ACCELERATE_TORCH_DEVICE"):
        return torch.device(device).type
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def process_state(ddp_timeout: int = DDP_TIMEOUT) -> PartialState:
    """This process among all of them; without an accelerator, ranks find each other on the CPU.

    Args:
        ddp_timeout: Seconds that a rank waits for the others before it fails. It holds for the process group, so only
            the first call in a process can set it.

    Raises:
        InputError: The launcher has started more processes on this machine than it has devices.
    """
    prepare_for_deepspeed()
    _refuse_more_processes_than_devices()
    if device_type() == "cpu":
        use_no_more_threads_than_cores()
        name_barriers_no_device()
    return PartialState(cpu=device_type() == "cpu", timeout=timedelta(seconds=ddp_timeout))


def prepare_for_deepspeed() -> None:
    """Take out of the way what would keep DeepSpeed, if it is to start in this process, waiting."""
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") and not torch.distributed.is_initialized():
        remove_dead_build_locks()
        if device_type() == "cpu":
            spare_extension_of_inference()


def _refuse_more_processes_than_devices() -> None:
    """Refuse what accelerate would let share a device, which NCCL does not allow.

    A process that sees one device of its own, as some clusters arrange it, cannot be told from one that shares it, and
    accelerate's barrier would name it a device that it does not see.
    """
    device, processes = device_type(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    devices = processes if device == "cpu" else torch.get_device_module(device).device_count()
    if processes > max(1, devices):
        raise InputError(
            f"{processes} processes were started on this machine, where torch finds {devices} devices ({device}); "
            "start as many as there are devices (--num_processes of accelerate launch), and let each see all of them "
            "(CUDA_VISIBLE_DEVICES), or set ACCELERATE_USE_CPU=true to compute on CPUs"
        )


def on_main_process(function: Callable[[], object]) -> None:
    """Call a function on the first rank, while the others wait."""
    state = process_state()
    if state.is_main_process:
        function()
    state.wait_for_everyone()


def ask_main_process(question: Callable[[], Answer]) -> Answer:
    """The first rank's answer, on all ranks: whether a file is there that the first rank may write.

    No other rank may look for it, because a disk on the network may tell a machine for a minute that a file is still
    not there which it has looked for in vain, and ranks that found different things would do different things.
    """
    state = process_state()
    return broadcast_object_list([question() if state.is_main_process else None])[0]  # type: ignore[no-any-return]


def rows_of_rank(total: int) -> range:
    """The rows, of so many, that this rank works on."""
    state = process_state()
    rank, ranks = state.process_index, state.num_processes
    return range(total * rank // ranks, total * (rank + 1) // ranks)


class SharedArray:
    """An array whose rows all ranks compute: each appends those of `rows_of_rank` in order, then all read the whole.

    Each rank writes a file of its own, and no file is opened that another rank has not closed: network disks promise
    no more than that whoever opens a file sees what was closed before.

    Args:
        path: File on a disk that all ranks see. None, for one rank: the array lives in memory.
    """

    def __init__(self, path: Path | None, shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.shape = shape
        self._path, self._dtype = path, dtype
        if path is None:
            self._in_memory, self._filled = np.empty(shape, dtype), 0
        else:
            self._part(process_state().process_index).write_bytes(b"")

    def append(self, rows: np.ndarray) -> None:
        """Add this rank's next rows."""
        if self._path is None:
            self._in_memory[self._filled : self._filled + len(rows)] = rows
            self._filled += len(rows)
        else:
            with self._part(process_state().process_index).open("ab") as file:
                file.write(np.ascontiguousarray(rows, self._dtype).data)

    def gather(self) -> np.ndarray:
        """Wait for all ranks; gives the rows of all, from a file mapped into memory, which cannot be changed."""
        if self._path is None:
            return self._in_memory
        process_state().wait_for_everyone()
        on_main_process(self._join)
        if not np.prod(self.shape):
            return np.empty(self.shape, self._dtype)  # a file of no bytes cannot be mapped
        return np.memmap(self._path, self._dtype, mode="r", shape=self.shape)

    def _join(self) -> None:
        """Append the other ranks' files to that of the first one, which alone writes to it."""
        assert self._path is not None
        with self._part(0).open("ab") as whole:
            for rank in range(1, process_state().num_processes):
                with self._part(rank).open("rb") as part:
                    shutil.copyfileobj(part, whole)
                self._part(rank).unlink()
        self._part(0).replace(self._path)

    def _part(self, rank: int) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.{rank}")


def shutdown_process_group() -> None:
    """Leave the process group together."""
    state = process_state()
    state.wait_for_everyone()
    state.destroy_process_group()


class RestartNeeded(BaseException):
    """Raised on all ranks where `restart_process` is to follow, once they have let go of what they hold."""


def restart_process() -> None:
    """Replace this process by a new one with the same command, which frees its memory; all ranks do so together."""
    # The launcher's store outlives its processes and would give the new ones the addresses of the old.
    with socket.socket() as free:
        free.bind(("", 0))
        port = broadcast_object_list([free.getsockname()[1]])[0]
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    shutdown_process_group()
    os.environ[RESTARTED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def was_restarted() -> bool:
    """Whether `restart_process` started this process."""
    return RESTARTED in os.environ
