"""The revision of a Hub model, written behind its id: `owner/name@revision`."""

from __future__ import annotations

from pathlib import Path


def split_revision(name: str) -> tuple[str, str | None]:
    """A model's name, and the branch, tag or commit behind its `@`; None where there is none, as for a local folder."""
    model, at, revision = name.partition("@")
    return (name, None) if not at or is_folder(name) else (model, revision)


def is_folder(name: str) -> bool:
    """Whether a name is a local folder's; no folder can have a name that the system refuses."""
    try:
        return Path(name).is_dir()
    except OSError:
        return False
