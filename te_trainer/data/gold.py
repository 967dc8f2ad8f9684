"""Sets with gold scores: what chooses checkpoints (dev) and what is reported (test)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from te_trainer.data.benchmarks import BENCHMARKS, Rows
from te_trainer.data.hub_sets import split_set
from te_trainer.data.pool import pair_digest
from te_trainer.data.readers import FILE_SUFFIXES, read_rows
from te_trainer.errors import InputError

BLANK = ["", "", ""]  # what a reader gives for a blank line


@dataclass(frozen=True)
class GoldSet:
    """Pairs with gold scores.

    Args:
        name: the benchmark's name, the file's without its ending, or what stands behind the owner in a Hub id.
        sentence1, sentence2: the pairs.
        scores: float64, shape (n,).
        unscored: rows left out because they have no score (the paper drops them too).
        notes: what was done to the rows while they were read, for people.
        from_hub: whether it was read from the Hub, and not from a local file or folder.
    """

    name: str
    sentence1: list[str]
    sentence2: list[str]
    scores: np.ndarray
    unscored: int = 0
    notes: tuple[str, ...] = ()
    from_hub: bool = False

    def __len__(self) -> int:
        return len(self.sentence1)

    def fingerprint(self) -> str:
        """A hash of pairs and scores in their order."""
        digest = hashlib.sha256(self.scores.tobytes())
        for pair in zip(self.sentence1, self.sentence2, strict=True):
            digest.update(pair_digest(*pair).to_bytes(8, "little"))
        return digest.hexdigest()[:16]


def load_gold(
    source: str,
    role: Literal["dev", "test"],
    columns: dict[str, str],
    folder: str | None = None,
    key: str | None = None,
) -> GoldSet:
    """Load a set with gold scores.

    Args:
        role: which rows are wanted.
        key: of the configuration that named the set, for errors. Default: `data.ROLE`.

    Raises:
        InputError: a score is not a number, all scores are the same, fewer than two rows are scored.
    """
    key = key or f"data.{role}"
    benchmark = None if Path(source).exists() else BENCHMARKS.get(source)
    rows = Rows(role)
    if benchmark is not None:
        chosen = benchmark.dev if role == "dev" else benchmark.test
        if chosen is None:
            raise InputError(f"{key}: {source} has no {role} rows; choose another set")
        rows = chosen
    sentence1, sentence2, scores = [], [], []
    unscored = 0
    notes: list[str] = []
    found = read_rows(source, ["sentence1", "sentence2", "score"], columns, folder, rows.split, notes)
    written = ((place, values) for place, values in found if values != BLANK)
    for place, (first, second, score) in islice(written, rows.start, rows.stop):
        if score is None or (isinstance(score, str) and not score.strip()):
            unscored += 1
            continue
        try:
            # float() takes the underscores of Python's own numbers, too
            value = math.nan if isinstance(score, str) and "_" in score else float(score)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{place}: the gold score '{str(score)[:100]}' is not a number; mend or remove the row")
        for sentence in (first, second):
            if not isinstance(sentence, str) or not sentence.strip():
                raise InputError(f"{place}: a sentence is missing or not text; mend or remove the row")
        sentence1.append(first.strip())
        sentence2.append(second.strip())
        scores.append(value)
    if len(scores) < 2:
        raise InputError(
            f"{key}: {source} holds {len(scores)} rows with gold scores; at least two are needed (of a file with a "
            f"column 'split', only the rows that say '{rows.split}' count)"
        )
    if min(scores) == max(scores):
        raise InputError(f"{key}: all gold scores in {source} are {scores[0]:g}; nothing can be ranked by them")
    from_hub = not Path(source).exists() and not (benchmark is not None and folder is not None)
    return GoldSet(
        _name(source),
        sentence1,
        sentence2,
        np.array(scores, dtype=np.float64),
        unscored,
        notes=tuple(notes),
        from_hub=from_hub,
    )


def _name(source: str) -> str:
    path = Path(source)
    if path.suffix.lower() in FILE_SUFFIXES:
        return path.stem
    if not path.exists() and split_set(source) is not None:
        # a revision may hold slashes, the name of a folder may not
        return source.partition("/")[2].replace("/", "-")
    return path.name
