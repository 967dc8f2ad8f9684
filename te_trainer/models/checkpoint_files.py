"""The files of a checkpoint, which anybody may have written: read, and refused where they are not as expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from te_trainer.errors import InputError

KINDS = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint's folder.

    Args:
        name: The model's name, as its user wrote it; each refusal begins with it.
        folder: The local folder.
    """

    name: str
    folder: Path

    def refusal(self, reason: str) -> InputError:
        """An error that says what is wrong with this model, and how to fix it."""
        return refusal(self.name, reason)

    def read_json(self, file: str, kind: type) -> Any:
        """The content of a file; None if there is no such file.

        Args:
            file: Path within the folder.
            kind: What the file must hold, `dict` or `list`.

        Raises:
            InputError: The file is not JSON, or holds something else.
        """
        path = self.folder / file
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = "it nests too deeply" if isinstance(error, RecursionError) else first_line(error)
            raise self.refusal(f"{file} is no JSON that can be read ({reason}); copy it again") from None
        if not isinstance(content, kind):
            raise self.refusal(f"{file} does not hold {KINDS[kind]}; copy it again")
        return content

    def read_mapping(self, file: str, kinds: Mapping[str, type]) -> dict[str, Any]:
        """The content of a file, without keys whose value is null; empty if there is no such file.

        Args:
            file: Path within the folder.
            kinds: Types of the keys' values, of those keys whose type matters.

        Raises:
            InputError: The file is not a JSON mapping, or a value is of another type.
        """
        content = {key: value for key, value in (self.read_json(file, dict) or {}).items() if value is not None}
        for key, kind in kinds.items():
            self.check_value(file, key, content.get(key), kind)
        return content

    def check_value(self, file: str, key: str, value: Any, kind: type) -> None:
        """Refuse a value that is neither absent nor of its type."""
        # in Python, True is a whole number
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise self.refusal(
                f"{key} in {file} is {str(value)[:60]!r}, where {KINDS[kind]} is expected; correct the file"
            )


def refusal(name: str, reason: str) -> InputError:
    """An error that names a model, and says what is wrong with it and how to fix it."""
    return InputError(f"model {name}: {reason}")


def first_line(error: BaseException) -> str:
    """What an error of another library says first; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
