"""What a process keeps of the memory that it frees."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import process_environment

FAULTS = """
import resource, sys
import torch
from te_trainer.processes import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
found = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(256, 2**18)  # 256 MB: 65,536 pages, or 128 huge ones
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found[1:]))  # a system that is short of memory takes pages back by itself
"""


def faults(how: str, **environment: str) -> int:
    """Pages that had to be fetched from the system for a block as large as one that was just freed."""
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, env=process_environment() | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries are left alone")
def test_freed_memory_is_used_again() -> None:
    assert faults("keep") < 64 < 120 < faults("leave")


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries are left alone")
def test_what_the_environment_says_of_malloc_is_left_alone() -> None:
    assert faults("keep", MALLOC_ARENA_MAX="2") > 120
