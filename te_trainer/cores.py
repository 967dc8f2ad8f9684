"""How many cores of the CPU this process may use, which is fewer than the machine has in jobs and containers."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")


def use_no_more_threads_than_cores() -> None:
    """Lower torch's number of threads to that of the cores that this process may use.

    `accelerate launch` sets `OMP_NUM_THREADS` to all cores of the machine, and torch does not know of a container's
    limit. Threads that share a core are many times slower than one.
    """
    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


@cache
def usable_cores() -> int:
    """The cores that the scheduler gives to this process, or as many as its container's quota of time is worth."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(_quota() or allowed)))


def _quota() -> float | None:
    """Seconds of CPU a second that Linux gives to this container; None where it sets no limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = (part for name in names for part in (CGROUPS / name).read_text().split())
            return None if quota == "max" or float(quota) < 0 else float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None
