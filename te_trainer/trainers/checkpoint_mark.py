"""The mark of a checkpoint that is whole: it is written last, because a run may be killed in the middle of one."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

WHOLE_MARK = "checkpoint-is-whole"
WEIGHTS_MARK = "weights-are-whole"  # of a checkpoint that a training cannot resume from
MARKS = (WHOLE_MARK, WEIGHTS_MARK)


def mark_whole(checkpoint: Path, mark: str = WHOLE_MARK) -> None:
    """Write the mark, which lists the files with their sizes: a Trainer resumes silently where a state is missing."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and not path.name.endswith(MARKS)]
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    partial = checkpoint / f".{mark}"
    partial.write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    partial.replace(checkpoint / mark)


def mark_of(checkpoint: Path) -> Path:
    """The mark of a checkpoint, of either kind; it need not be there."""
    weights = checkpoint / WEIGHTS_MARK
    return weights if weights.exists() else checkpoint / WHOLE_MARK


def remove_unfinished(folder: Path) -> None:
    """Remove the checkpoints that a killed process was writing, and older ones that it was removing.

    A Trainer removes old checkpoints when the new one's files are written and its mark is not. Those after the last
    one that a training can resume from are removed too, since they will be made again.
    """
    checkpoints = sorted(folder.glob("checkpoint-*"), key=_step)
    unfinished = [path for path in checkpoints if not mark_of(path).exists()]
    newest = _step(unfinished[-1]) if unfinished else 0
    for path in checkpoints:
        if path not in unfinished and _step(path) < newest:
            with contextlib.suppress(ValueError):
                files = json.loads(mark_of(path).read_text(encoding="utf-8"))
                if not all((path / name).exists() for name in files):
                    unfinished.append(path)
    for path in unfinished:
        shutil.rmtree(path)
    last = last_whole_checkpoint(folder)
    remove_behind(folder, 0 if last is None else _step(Path(last)))


def remove_behind(folder: Path, step: int) -> None:
    """Remove the checkpoints after a step, which are made again; the newest first, since it may name an older one."""
    for path in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        if _step(path) > step:
            _remove(path)


def remove_others(folder: Path, *kept: str | None) -> None:
    """Remove all checkpoints but these; a kill in the middle leaves none with a mark and without its files."""
    names = {Path(path).name for path in kept if path}
    for path in folder.glob("checkpoint-*"):
        if path.name not in names:
            _remove(path)


def _remove(checkpoint: Path) -> None:
    mark_of(checkpoint).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in a folder that a training can resume from; None where there is none."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE_MARK}")]
    return str(max(whole, key=_step)) if whole else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
