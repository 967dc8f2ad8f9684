"""The mark of a checkpoint that is whole: it is written last, because a run may be killed in the middle of one."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

WHOLE_MARK = "checkpoint-is-whole"


def mark_whole(checkpoint: Path) -> None:
    """Write the mark, which lists the files with their sizes: a Trainer resumes silently where a state is missing."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and WHOLE_MARK not in path.name]
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    partial = checkpoint / f".{WHOLE_MARK}"
    partial.write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    partial.replace(checkpoint / WHOLE_MARK)


def remove_unfinished(folder: Path) -> None:
    """Remove the checkpoints that a killed process was writing, and older ones that it was removing.

    A Trainer removes old checkpoints when the new one's files are written and its mark is not.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=_step)
    unfinished = [path for path in checkpoints if not (path / WHOLE_MARK).exists()]
    newest = _step(unfinished[-1]) if unfinished else 0
    for path in checkpoints:
        if path not in unfinished and _step(path) < newest:
            with contextlib.suppress(ValueError):
                files = json.loads((path / WHOLE_MARK).read_text(encoding="utf-8"))
                if not all((path / name).exists() for name in files):
                    unfinished.append(path)
    for path in unfinished:
        shutil.rmtree(path)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in a folder that was written to its end; None where there is none."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE_MARK}")]
    return str(max(whole, key=_step)) if whole else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
