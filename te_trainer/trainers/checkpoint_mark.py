"""The mark of a checkpoint that is whole: it is written last, because a run may be killed in the middle of one."""

from __future__ import annotations

import json
from pathlib import Path

WHOLE_MARK = "checkpoint-is-whole"


def mark_whole(checkpoint: Path) -> None:
    """Write the mark, which lists the files with their sizes: a Trainer resumes silently where a state is missing."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and WHOLE_MARK not in path.name]
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    partial = checkpoint / f".{WHOLE_MARK}"
    partial.write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    partial.replace(checkpoint / WHOLE_MARK)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in a folder that was written to its end; None where there is none."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE_MARK}")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
