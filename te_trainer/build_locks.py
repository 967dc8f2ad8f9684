"""Locks of torch's compiler that killed processes have left, for which every later run would wait without end.

When DeepSpeed starts, it asks torch to build its extensions, such as that of the optimiser on the CPU, if only to see
that they are there. torch's `FileBaton` guards each by a file `lock`, which its process holds open and removes; a
process that is killed does not.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import time
from pathlib import Path

YOUNG = 2.0  # seconds; a process that starts again after a kill takes longer
# Where a batch system started the run, one of its other machines may build in the same home folder.
BATCH_SYSTEMS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
OLD = 3600.0  # seconds; no extension takes so long to build

logger = logging.getLogger(__name__)


def remove_dead_build_locks() -> None:
    """Remove the user's locks that no process holds; call it before DeepSpeed starts.

    Processes of other machines cannot be seen. A run on several of them removes nothing, and says what it may wait for;
    so does one that a batch system started, unless the lock is old.
    """
    on_one_machine = int(os.environ.get("WORLD_SIZE", "1")) <= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    in_batch = any(name in os.environ for name in BATCH_SYSTEMS)
    for path in _build_locks():
        held = path in _open_files()
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            # what another process has put in the place of a dead one by now is young
            age = time.time() - status.st_mtime
            if held or status.st_uid != os.getuid() or age < YOUNG:
                continue
            if on_one_machine and not (in_batch and age < OLD):
                path.unlink()
            else:
                logger.warning(
                    "%s: DeepSpeed waits for the process that made this file; if none builds its extensions, on any "
                    "machine, delete the file",
                    path,
                )


def _build_locks() -> list[Path]:
    """Where `torch.utils.cpp_extension` puts them."""
    from torch.utils.cpp_extension import get_default_build_root

    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    found = Path(named).glob("*/lock") if named else Path(get_default_build_root()).glob("*/*/lock")
    return sorted(path.resolve() for path in found)


def _open_files() -> set[Path]:
    """What the user's processes hold open, as Linux says; DeepSpeed runs on no other system."""
    found = set()
    # Path.glob ends where a process does
    for link in glob.iglob("/proc/[0-9]*/fd/*"):  # noqa: PTH207
        with contextlib.suppress(OSError):
            found.add(Path(link).readlink())
    return found
