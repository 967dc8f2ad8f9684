"""What the user may call things: models, sets with gold scores, folders and files.

Each name becomes a file, a key of `results.json` and a column or row of a table. So it is checked before a run begins.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from te_trainer.errors import InputError
from te_trainer.escaping import steers

LONGEST_FILE_NAME = 255  # bytes, the limit of common file systems
LONGEST_NAME = 200  # bytes; leaves room for the prefixes and endings that a run adds

# What lies in the output folder of trans_encoder.py beside the folders of the models (`RunLayout`), as `folded`.
RUN_FOLDER_NAMES = frozenset({"run.yaml", "results.json", "report.md", "report.html", "curves.png"}) | {
    *("python-pairs.jsonl", "neighbours.json", "pool", "sentences", "mining", "start", "agreement", "logs"),
}
CYCLE_FOLDER = re.compile(r"cycle-.*", re.DOTALL)
# Keys of `results.json` that stand where the models' names stand.
RESULT_KEYS = frozenset({"cycle", "ensemble"})
# What stands among the test sets' scores, in results and in tables.
SCORE_COLUMNS = frozenset({"avg", "avg."})


def folded(name: str) -> str:
    """The form by which names are compared: without case, invisible characters and variants of Unicode."""
    visible = "".join(character for character in name if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


def check_model_names(names: Sequence[str]) -> None:
    """Refuse names of PLMs that cannot name folders in a run's folder, and two that are alike."""
    taken = RUN_FOLDER_NAMES | RESULT_KEYS | {folded(name) for name in names if CYCLE_FOLDER.fullmatch(folded(name))}
    _check_names(names, "models", "entries", "a model's folder", taken, "give another name")


def check_set_names(names: Sequence[str], key: str, taken: Collection[str] = SCORE_COLUMNS) -> None:
    """Refuse names of sets with gold scores that cannot name files or columns, and two that are alike.

    `key` of the configuration names the sets; `taken` are names that a table of scores has for other columns.
    """
    _check_names(names, key, "sets", "a set with gold scores", taken, "rename the file")


def check_path(path: str, key: str, is_file: bool = False) -> None:
    """Refuse the path of a folder or a file that cannot be made, or that cannot be shown."""
    reason = "it is empty" if not path else _unusable_characters(path) or (_fault(Path(path).name) if is_file else None)
    if reason is None and "://" in path:
        reason = "it is an address, not a path"
    if reason is None and not can_be_looked_up(path):
        reason = f"a part of it has more than {LONGEST_FILE_NAME} bytes"
    if reason is not None:
        raise InputError(f"{key}: '{path}' cannot be written to: {reason}; name another one")


def can_be_looked_up(source: str) -> bool:
    """Whether a file system or the Hub could hold a model, a file or a data set of this name."""
    return all(len(part) <= LONGEST_FILE_NAME for part in source.encode("utf-8", "surrogateescape").split(b"/"))


def split_revision(name: str) -> tuple[str, str | None]:
    """A model's name, and the branch, tag or commit after its `@`; None where there is none, as for a local folder."""
    model, at, revision = name.partition("@")
    return (name, None) if not at or is_folder(name) else (model, revision)


def is_folder(name: str) -> bool:
    """Whether a name is a local folder's; no folder can have a name that the system refuses."""
    return os.path.isdir(name)  # noqa: PTH112 - Path.is_dir raises where a name is too long


def is_file(name: str | Path) -> bool:
    """Whether a name is a local file's, as far as the system lets one look."""
    return os.path.isfile(name)  # noqa: PTH113


def expand_home(name: str) -> str:
    """A name with the home folder in place of a `~` that it begins with.

    Each name is expanded where it is read, because libraries disagree on whether a path may begin so.
    """
    expanded = os.path.expanduser(name)  # noqa: PTH111 (pathlib would drop a slash of an address)
    if expanded == "~" or expanded.startswith("~/"):
        raise InputError(f"'{name}' cannot be found, because HOME is not set; set it, or write the whole path")
    return expanded


def _check_names(names: Sequence[str], key: str, named: str, kind: str, taken: Collection[str], fix: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        reason = _fault(name) or ("something else has that name" if folded(name) in taken else None)
        if reason is not None:
            raise InputError(f"{key}: '{name}' cannot name {kind}: {reason}; {fix}")
        if (other := seen.setdefault(folded(name), name)) != name or names.count(name) > 1:
            same = f"'{other}' and '{name}' differ only in case or in the form of characters"
            raise InputError(f"{key}: {same if other != name else f'two {named} are named {name!r}'}; {fix}")


def _fault(name: str) -> str | None:
    """Why a name cannot be a file's; None where it can."""
    if not name.strip():
        return "it is empty"
    if "/" in name or "\\" in name:
        return "it holds a path separator"
    if (reason := _unusable_characters(name)) is not None:
        return reason
    if name[0] == "." or name[-1] == "." or name != name.strip():
        return "it begins or ends with a dot or a space"
    return f"it has more than {LONGEST_NAME} bytes" if len(name.encode()) > LONGEST_NAME else None


def _unusable_characters(text: str) -> str | None:
    """Which character of a text cannot be shown as what it is: of control, of direction, half of one."""
    if "::" in text:
        return "it holds '::', which libraries take for the border between two paths"
    for character in filter(steers, text):
        plain = "half a character" if unicodedata.category(character) == "Cs" else "a control character"
        return f"it holds U+{ord(character):04X} ({unicodedata.name(character, plain).lower()})"
    return None
