"""JSON files of a checkpoint, which anybody may have written: read, and refused where they hold something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from te_trainer.errors import InputError

KINDS = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}


def read_json(name: str, folder: str | Path, file: str, kind: type) -> Any:
    """The content of a file in a checkpoint's folder; None if there is no such file.

    Args:
        name: of the model, for the sentence of a refusal.
        kind: what the file must hold, `dict` or `list`.

    Raises:
        InputError: the file is no JSON, or holds something else.
    """
    path = Path(folder, file)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, RecursionError) else "it nests too deeply"
        raise InputError(f"model {name}: {file} is no JSON that can be read ({reason}); copy it again") from None
    if not isinstance(content, kind):
        raise InputError(f"model {name}: {file} does not hold {KINDS[kind]}; copy it again")
    return content


def value_of(name: str, file: str, content: dict[str, Any], key: str, kind: type) -> Any:
    """The value of a key; None where the key is absent or null.

    Raises:
        InputError: the value is of another kind.
    """
    value = content.get(key)
    # in Python, True is a whole number
    if value is None or (isinstance(value, kind) and (kind is not int or not isinstance(value, bool))):
        return value
    raise InputError(
        f"model {name}: {key} in {file} is {str(value)[:60]!r}, where {KINDS[kind]} is expected; correct the file"
    )
