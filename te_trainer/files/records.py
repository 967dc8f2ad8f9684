"""How a run's own files are read back: one that is damaged is answered with one sentence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from te_trainer.errors import InputError
from te_trainer.files.disk_errors import DISK_ERRORS

AGAIN = "the run's command writes it again"


class DamagedError(InputError):
    """A file that a run has written is damaged, or gone."""


@contextlib.contextmanager
def damage_as_input_error(path: Path, delete: str | None = None, then: str = AGAIN) -> Iterator[None]:
    """Say in one sentence that a file of a run, which is read in this block, is missing or damaged.

    Args:
        path: the file, or the folder that was written as one.
        delete: what is to be deleted, where that is more than the file.
        then: what the command that began the run does after that.

    Raises:
        DamagedError: names the file, and what to delete.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what libraries say of files that were cut, bent or emptied is without number
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        what = "is damaged" if path.exists() else "is not there any more"
        raise DamagedError(f"{path} {what}; delete {delete or 'it'}, and {then}") from None


def read_json(path: Path, *keys: str, delete: str | None = None, then: str = AGAIN) -> dict[str, Any]:
    """Read a record that a run has written.

    Args:
        keys: that it must hold.
        delete, then: as for `damage_as_input_error`.

    Raises:
        DamagedError: it is missing or damaged.
    """
    with damage_as_input_error(path, delete, then):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            content[key]
        return content
