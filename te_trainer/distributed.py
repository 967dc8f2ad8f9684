"""The processes of a run."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

RESTARTED = "TE_TRAINER_RESTARTED"

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h


def device_type() -> str:
    """Type of the device that this process computes on, as torch names it: `cpu`, `cuda`, `xpu`, `npu`, `mps`, ...

    What accelerate was told (`accelerate launch --cpu`, or `use_cpu: true` in its configuration) goes before the
    hardware. Labelling and training ask here alone, so that they always choose the same device.
    """
    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return "cpu"
    if told := os.environ.get("ACCELERATE_TORCH_DEVICE"):
        return torch.device(told).type
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def process_state(ddp_timeout: int | None = None) -> PartialState:
    """This process among all of them; without an accelerator, ranks find each other on the CPU.

    Args:
        ddp_timeout: Seconds that a rank waits for the others before it fails. It holds for the process group, so only
            the first call in a process can set it. Default: torch's, 10 minutes on GPUs and 30 on CPUs.
    """
    timeout = {} if ddp_timeout is None else {"timeout": timedelta(seconds=ddp_timeout)}
    return PartialState(cpu=device_type() == "cpu", **timeout)


def on_main_process(function: Callable[[], object]) -> None:
    """Call a function on the first rank, while the others wait."""
    state = process_state()
    if state.is_main_process:
        function()
    state.wait_for_everyone()


def keep_freed_memory() -> None:
    """On a CPU, let this process keep the memory that a training step frees for the next one.

    glibc gives large blocks back to the system each time, and every page of theirs costs a fault when it is used again:
    a quarter of a step, where a hypervisor stands behind the system. What the environment says of malloc is left
    alone, and so are other C libraries.
    """
    said = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if said or device_type() != "cpu":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)


def shutdown_process_group() -> None:
    """Leave the process group together."""
    state = process_state()
    state.wait_for_everyone()
    state.destroy_process_group()


def restart_process() -> None:
    """Replace this process by a new one with the same command; all ranks do so together.

    The launcher takes it for the same process. What the old one held, in memory or on a device, is gone.
    """
    # The launcher's store outlives its processes and would give the new ones the addresses of the old.
    port = broadcast_object_list([_free_port()])[0]
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    shutdown_process_group()
    os.environ[RESTARTED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def was_restarted() -> bool:
    """Whether `restart_process` started this process."""
    return RESTARTED in os.environ


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("", 0))
        return int(any_port.getsockname()[1])
