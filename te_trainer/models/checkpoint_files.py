"""The files of a checkpoint, which anybody may have written: read, and refused where they are not as expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from te_trainer.errors import InputError, first_line

TYPES = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint's local folder, and the model's name as its user wrote it."""

    name: str
    folder: Path

    def refusal(self, reason: str) -> InputError:
        """An error that says what is wrong with this model, and how to fix it."""
        return refusal(self.name, reason)

    def loading_failure(self, error: Exception, file: str, reason: str) -> InputError:
        """An error for a configuration or a tokenizer that transformers could not load; `reason` says why."""
        if "trust_remote_code" in str(error):
            reason = (
                f"it needs code of its own (auto_map in {file}), which te_trainer does not run; start from a model "
                "that transformers knows"
            )
        return self.refusal(reason)

    def read_json(self, file: str, expected: type) -> Any:
        """The content of a file, a `dict` or a `list`; None if there is no such file."""
        path = self.folder / file
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.refusal(f"{file} is no JSON that can be read ({first_line(error)}); copy it again") from None
        if not isinstance(content, expected):
            raise self.refusal(f"{file} does not hold {TYPES[expected]}; copy it again")
        return content

    def read_mapping(self, file: str, types: Mapping[str, type]) -> dict[str, Any]:
        """The content of a file without keys whose value is null; refused where a key's value has another type."""
        content = {key: value for key, value in (self.read_json(file, dict) or {}).items() if value is not None}
        for key, value in content.items():
            expected = types.get(key, object)
            # in Python, True is a whole number
            if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
                raise self.refusal(
                    f"{key} in {file} is {str(value)[:60]!r}, where {TYPES[expected]} is expected; correct the file"
                )
        return content


def refusal(name: str, reason: str) -> InputError:
    """An error that names a model, and says what is wrong with it and how to fix it."""
    return InputError(f"model {name}: {reason}")
