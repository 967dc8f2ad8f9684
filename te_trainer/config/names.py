"""What the user may call things: models, sets with gold scores, folders and files.

Each name becomes a file, a key of `results.json` and a column or row of a table. So it is checked before a run begins.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from te_trainer.errors import InputError
from te_trainer.escaping import steers

LONGEST_FILE_NAME = 255  # bytes, the limit of common file systems
LONGEST_NAME = 200  # bytes; leaves room for the prefixes and endings that a run adds

# What lies in the output folder of trans_encoder.py beside the folders of the models; names are compared as `folded`.
RUN_FOLDER_NAMES = frozenset(
    {
        "run.yaml",
        "pool",
        "sentences",
        "start",
        "agreement",
        "logs",
        "results.json",
        "report.md",
        "report.html",
        "curves.png",
    }
)
BORDER = "it holds '::', which libraries take for the border between two paths"
CYCLE_FOLDER = re.compile(r"cycle-.*", re.DOTALL)
# Keys of `results.json` that stand where the models' names stand.
RESULT_KEYS = frozenset({"cycle", "ensemble"})
# What stands among the test sets' scores, in results and in tables.
SCORE_COLUMNS = frozenset({"avg", "avg."})


def folded(name: str) -> str:
    """What two names share that a file system, or a reader, may take for one another."""
    visible = "".join(character for character in name if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


def check_model_names(names: Sequence[str]) -> None:
    """Refuse names of PLMs that cannot name folders in a run's folder, and two that are alike.

    Raises:
        InputError: says which name, and why.
    """
    for name in names:
        reason = _fault(name)
        if reason is None and (
            folded(name) in RUN_FOLDER_NAMES | RESULT_KEYS or CYCLE_FOLDER.fullmatch(folded(name)) is not None
        ):
            reason = "a run's folder or its results hold something else of that name"
        if reason is not None:
            raise InputError(f"models: '{name}' cannot name a model's folder: {reason}; give another name")
    _check_distinct(names, "models: two entries are named", "models:", "give each a name of its own")


def check_set_names(names: Sequence[str], key: str, taken: Collection[str] = SCORE_COLUMNS) -> None:
    """Refuse names of sets with gold scores that cannot name files or columns, and two that are alike.

    Args:
        key: of the configuration, that names the sets.
        taken: names that a table of scores has for other columns.

    Raises:
        InputError: says which name, and why.
    """
    for name in names:
        reason = _fault(name)
        if reason is None and folded(name) in taken:
            reason = "tables and results.json have another column of that name"
        if reason is not None:
            raise InputError(f"{key}: '{name}' cannot name a set with gold scores: {reason}; rename the file")
    _check_distinct(names, f"{key}: two sets are named", f"{key}:", "rename a file")


def check_path(path: str, key: str) -> None:
    """Refuse the path of a folder or a file that cannot be made, or that cannot be shown.

    Raises:
        InputError: names the key.
    """
    reason = "it is empty" if not path else _unusable_characters(path)
    if reason is None and "::" in path:
        reason = BORDER
    if reason is None and "://" in path:
        reason = "it is an address, not a path"
    if reason is None and any(len(part.encode()) > LONGEST_FILE_NAME for part in Path(path).parts):
        reason = f"a part of it has more than {LONGEST_FILE_NAME} bytes"
    if reason is not None:
        raise InputError(f"{key}: '{path}' cannot be written to: {reason}; name another one")


def check_output_name(path: str, key: str) -> None:
    """Refuse the path of a file that is to be written.

    Raises:
        InputError: names the key.
    """
    check_path(path, key)
    reason = _fault(Path(path).name)
    if reason is not None:
        raise InputError(f"{key}: '{Path(path).name}' cannot name a file: {reason}; give another name")


def can_be_looked_up(source: str) -> bool:
    """Whether a file system or the Hub could hold a model, a file or a data set of this name."""
    return all(len(part) <= LONGEST_FILE_NAME for part in source.encode("utf-8", "surrogateescape").split(b"/"))


def _fault(name: str) -> str | None:
    """Why a name cannot be a file's; None where it can."""
    if not name.strip():
        return "it is empty"
    if "/" in name or "\\" in name:
        return "it holds a path separator"
    if (reason := _unusable_characters(name)) is not None:
        return reason
    if "::" in name:
        return BORDER
    if name[0] == "." or name[-1] == ".":
        return "it begins or ends with a dot"
    if name != name.strip():
        return "it begins or ends with a space"
    if len(name.encode()) > LONGEST_NAME:
        return f"it has {len(name.encode())} bytes, more than {LONGEST_NAME}"
    return None


def _unusable_characters(text: str) -> str | None:
    """Which character of a text cannot be shown as what it is: of control, of direction, half of one."""
    for character in text:
        if steers(character):
            plain = "half a character" if unicodedata.category(character) == "Cs" else "a control character"
            return f"it holds U+{ord(character):04X} ({unicodedata.name(character, plain).lower()})"
    return None


def _check_distinct(names: Sequence[str], same: str, alike: str, fix: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other == name and list(names).count(name) > 1:
            raise InputError(f"{same} '{name}'; {fix}")
        if other != name:
            raise InputError(
                f"{alike} '{other}' and '{name}' differ only in case or in the form of characters, so a file system "
                f"may take one for the other; {fix}"
            )
