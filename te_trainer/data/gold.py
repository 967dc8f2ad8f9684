"""Sets with gold scores: what chooses checkpoints (dev) and what is reported (test)."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.arrow_io import BLOCK_ROWS
from te_trainer.data.benchmarks import Rows
from te_trainer.data.compression import file_format, strip_compression
from te_trainer.data.digests import text_digest
from te_trainer.data.readers import FILE_SUFFIXES, find_benchmark, read_rows, repository_of
from te_trainer.data.texts import as_texts
from te_trainer.errors import InputError, NoRowsError

Role = Literal["dev", "test"]

TRUTHS = {"true": 1.0, "false": 0.0}  # as pandas writes booleans
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class GoldSet:
    """Pairs with gold scores."""

    name: str  # of the benchmark, of the file without its suffix, or of a Hub id without its owner
    sentence1: list[str]
    sentence2: list[str]
    scores: np.ndarray  # float64, shape (n,)
    unscored: int = 0  # rows that were dropped because they have no score (the paper drops them too)
    notes: tuple[str, ...] = ()  # what the reader did to the rows, for people
    from_hub: bool = False  # and not from a local file or folder

    def __len__(self) -> int:
        return len(self.sentence1)

    @property
    def columns(self) -> dict[str, list[str]]:
        return {"sentence1": self.sentence1, "sentence2": self.sentence2}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.sentence1, self.sentence2, strict=True))

    @cached_property
    def groups(self) -> np.ndarray:
        """The number of each row's pair among the different ones, which come in their order, shape (n,).

        A pair that comes again, in either order, is no more evidence than it was once.
        """
        numbers: dict[tuple[str, ...], int] = {}
        return np.array([numbers.setdefault(tuple(sorted(pair)), len(numbers)) for pair in self.pairs])

    @property
    def different(self) -> int:
        """Different pairs."""
        return int(self.groups.max()) + 1

    def describe(self) -> str:
        """How many pairs there are, for people."""
        repeats = len(self) - self.different
        again = f" ({repeats:,} of them repeated)" if repeats else ""
        return f"{len(self):,} pairs with gold scores{again}, {self.unscored:,} without"

    def fingerprint(self) -> str:
        """Hash of pairs and scores in their order."""
        digest = hashlib.sha256(self.scores.tobytes())
        for pair in self.pairs:
            digest.update(text_digest(*pair).to_bytes(8, "little"))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class GoldSets:
    """The sets with gold scores of a run: the dev set, if there is one, and the test sets, which choose nothing."""

    dev: GoldSet | None = None
    tests: tuple[GoldSet, ...] = ()

    def __iter__(self) -> Iterator[tuple[Role, GoldSet]]:
        """Each set with its role, the dev set first."""
        if self.dev is not None:
            yield "dev", self.dev
        yield from (("test", gold) for gold in self.tests)


def load_gold(
    source: str,
    role: Role,
    columns: dict[str, str],
    folder: str | None = None,
    key: str | None = None,
) -> GoldSet:
    """Load a set with gold scores.

    Args:
        role: Which rows to load: of a benchmark its dev or test rows, of others those of this split.
        columns, folder: As for `read_rows`.
        key: Configuration key that names the set, for errors. Default: `data.ROLE`.

    Raises:
        InputError: A score is not a number, all scores are equal, or fewer than two rows have a score.
    """
    key = key or f"data.{role}"
    benchmark = find_benchmark(source)
    rows = Rows(role) if benchmark is None else benchmark.dev if role == "dev" else benchmark.test
    if rows is None:
        raise InputError(f"{key}: {source} has no {role} rows; choose another set")
    notes: list[str] = []
    pairs, scores, unscored = [], [], 0
    for position, (*sentences, score) in read_rows(source, [*SENTENCE_COLUMNS, "score"], columns, folder, rows, notes):
        if score is None or (isinstance(score, str) and not score.strip()):
            unscored += [*sentences, score] != ["", "", ""]  # as of a blank line, which is no row
            continue
        scores.append(_parse_score(position, score))
        texts = as_texts(position, sentences)
        if not all(texts):
            raise InputError(f"{position}: a sentence is missing; correct or remove the row")
        pairs.append(texts)
    if len(scores) < 2:
        raise NoRowsError(
            f"{key}: {source} holds {len(scores)} rows with gold scores; at least two are needed (of a file with a "
            f"column 'split', only the rows that say '{rows.split}' count)"
        )
    if min(scores) == max(scores):
        raise InputError(f"{key}: all gold scores in {source} are {scores[0]:g}; nothing can be ranked by them")
    sentence1, sentence2 = map(list, zip(*pairs, strict=True))
    path, from_hub = Path(source), repository_of(source, folder) is not None
    if from_hub:
        name = source.split("/", 1)[-1].replace("/", "-")  # a revision may hold slashes, the name of a folder may not
    else:
        name = strip_compression(path).stem if file_format(path) in FILE_SUFFIXES else path.name
    return GoldSet(name, sentence1, sentence2, np.array(scores, dtype=np.float64), unscored, tuple(notes), from_hub)


def count_overlaps(pool: Dataset, sets: Sequence[GoldSet]) -> list[int]:
    """Count, for each set, its pairs that the pool holds in either order.

    The pool is read once, block by block. Pairs are compared by the 64-bit hash by which a pool finds duplicates.
    """
    digests = [[{text_digest(one, two), text_digest(two, one)} for one, two in gold.pairs] for gold in sets]
    wanted = {digest for rows in digests for row in rows for digest in row}
    in_pool: set[int] = set()
    for block in pool.iter(batch_size=BLOCK_ROWS) if wanted else ():
        in_pool.update(wanted.intersection(map(text_digest, block["sentence1"], block["sentence2"])))
    return [sum(not row.isdisjoint(in_pool) for row in rows) for rows in digests]


def count_shared(dev: GoldSet, test: GoldSet) -> int:
    """Count the rows of a test set whose pair the dev set holds in either order."""
    seen = {tuple(sorted(pair)) for pair in dev.pairs}
    return sum(tuple(sorted(pair)) in seen for pair in test.pairs)


def _parse_score(position: str, score: Any) -> float:
    if isinstance(score, str) and (truth := TRUTHS.get(score.strip().lower())) is not None:
        return truth
    try:
        # float() would accept the underscores of Python's own numbers
        value = math.nan if isinstance(score, str) and "_" in score else float(score)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        fix = "correct or remove the row"
        if isinstance(score, str) and DECIMAL_COMMA.fullmatch(score.strip()):
            fix = "write decimals with a point in the whole file"
        raise InputError(f"{position}: the gold score '{str(score)[:100]}' is not a number; {fix}")
    return value
