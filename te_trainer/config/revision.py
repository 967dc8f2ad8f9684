"""The revision of a Hub model, written behind its id: `owner/name@revision`."""

from __future__ import annotations

from pathlib import Path


def split_revision(name: str) -> tuple[str, str | None]:
    """A model's name, and the branch, tag or commit behind its `@`; None where there is none.

    A local folder of the whole name has none, whatever it is called.
    """
    if "@" not in name or is_folder(name):
        return name, None
    model, _, revision = name.partition("@")
    return model, revision


def is_folder(name: str) -> bool:
    """Whether a name is a local folder's; no folder can have a name that the system refuses."""
    try:
        return Path(name).is_dir()
    except OSError:
        return False
