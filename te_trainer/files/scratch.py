"""A folder for what is needed only while all ranks work on it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from te_trainer.distributed import process_state
from te_trainer.files.atomic import remove


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that all ranks see, and that is removed when the block ends."""
    state = process_state()
    if state.is_main_process:
        remove(path)
        path.mkdir(parents=True)
    state.wait_for_everyone()
    try:
        yield path
        # a disk on the network takes from the others what they still read
        state.wait_for_everyone()
    finally:
        if state.is_main_process:
            shutil.rmtree(path, ignore_errors=True)
    state.wait_for_everyone()
