"""How a run's own files are read back: one that is damaged is answered with one sentence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from te_trainer.config.yaml_text import check_yaml
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


def read_run_file(root: Path, *keys: str) -> dict[str, Any]:
    """Read a run's `run.yaml`.

    Args:
        keys: that it must hold, beside those that every run's has.

    Raises:
        InputError: it is damaged, or another program's.
    """
    path = root / "run.yaml"
    with damaged_run_file_as_input_error(root):
        text = path.read_text(encoding="utf-8")
        check_yaml(text, by_hand=False)
        content: dict[str, Any] = yaml.safe_load(text)
        mappings = [content[key] for key in ("config", "versions")]
        if not all(isinstance(each, dict) for each in mappings) or not all(content[key] for key in keys):
            raise ValueError("a key has no value")
        if not text.endswith("\n"):
            raise ValueError("the last line was cut")
        return content


@contextlib.contextmanager
def damaged_run_file_as_input_error(root: Path) -> Iterator[None]:
    """Say in one sentence that a `run.yaml`, which is read in this block, lacks something."""
    path = root / "run.yaml"
    try:
        with damage_as_input_error(path):
            yield
    except DamagedError:
        # it may be another program's folder, so that nobody is told to delete it
        raise InputError(
            f"output_dir: {root} holds a run.yaml that is damaged, or that no run wrote; name another folder, or, if "
            f"{root} is a run's, delete it, and the same command begins from the start"
        ) from None
