"""The processes of a run."""

from __future__ import annotations

import ctypes
import os
import socket
import sys

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

CONTINUES = "TE_TRAINER_CONTINUES"

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h


def process_state() -> PartialState:
    """This process among all of them; on a machine without an accelerator, ranks find each other on the CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())


def keep_freed_memory() -> None:
    """On a CPU, let this process keep the memory that a training step frees for the next one.

    glibc gives large blocks back to the system each time, and every page of theirs costs a fault when it is used again:
    a quarter of a step, where a hypervisor stands behind the system. What the environment says of malloc is left
    alone, and so are other C libraries.
    """
    said = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if said or torch.accelerator.is_available():
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)


def leave() -> None:
    """Leave the process group together."""
    state = process_state()
    state.wait_for_everyone()
    state.destroy_process_group()


def begin_anew() -> None:
    """Replace this process by a new one with the same command; all ranks do so together.

    The launcher takes it for the same process. What the old one held, in memory or on a device, is gone.
    """
    # The launcher's store outlives its processes and would give the new ones the addresses of the old.
    port = broadcast_object_list([_free_port()])[0]
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    leave()
    os.environ[CONTINUES] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def continues() -> bool:
    """Whether this process was begun by `begin_anew`."""
    return CONTINUES in os.environ


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("", 0))
        return int(any_port.getsockname()[1])
