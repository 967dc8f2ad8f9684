"""How a run's own files are written and read back: a damaged one is named in a sentence that says what to delete."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from te_trainer.errors import InputError
from te_trainer.files.atomic import write_text
from te_trainer.files.disk_errors import DISK_ERRORS

Delete = str | Callable[[], str] | None  # a function that looks what is there is called where something is damaged
WRITTEN_AGAIN = "the run's command writes it again"


class DamagedError(InputError):
    """A file that a run has written is damaged, or gone."""


@contextlib.contextmanager
def damage_as_input_error(path: Path, delete: Delete = None, then: str = WRITTEN_AGAIN) -> Iterator[None]:
    """Say in one sentence that a file of a run, which is read in this block, is missing or damaged.

    The DamagedError names what to delete, where that is more than the file, and what the run's command does then.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # libraries raise errors of many kinds for files that were cut, emptied or changed
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        what = "is damaged" if path.exists() else "is not there any more"
        raise DamagedError(f"{path} {what}; delete {what_to_delete(delete)}, and {then}") from None


def what_to_delete(delete: Delete) -> str:
    """What a sentence says is to be deleted."""
    return delete() if callable(delete) else delete or "it"


def write_json(path: Path, content: Any, **format: Any) -> None:
    """Write a record in one step; `format` as of `json.dumps`."""
    write_text(path, json.dumps(content, indent=2, **format) + "\n")


def read_json(path: Path, *keys: str, delete: Delete = None, then: str = WRITTEN_AGAIN) -> dict[str, Any]:
    """Read a record that a run has written and that must hold the keys; raises DamagedError."""
    with damage_as_input_error(path, delete, then):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            content[key]
        return content
