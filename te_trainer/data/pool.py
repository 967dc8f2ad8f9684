"""The pool: distinct pairs of sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from te_trainer.config.schema import DataConfig
from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.arrow_io import pairs_of
from te_trainer.data.readers import read_rows
from te_trainer.data.text_file import Manifest, SourceCount, draw, without_empty
from te_trainer.data.texts import as_texts
from te_trainer.errors import InputError


class PoolManifest(Manifest):
    """Counts of a pool of pairs."""

    title, source_unit, unit = "pool", "rows", "pairs"
    arrow_file, json_file = "pairs.arrow", "pool.json"


def build_pool(data: DataConfig, folder: Path, seed: int = 0) -> PoolManifest:
    """Read the sources of pairs once and write `pairs.arrow` and `pool.json` into `folder`.

    A pair that occurs twice in the same order is kept once. Rows that lack a sentence are dropped.

    Of the pairs that only `extra` sources hold, drawn or not, `extra_pairs` are drawn and added at the end (the paper's
    Fig. 5). The rest of the pool is the same with and without them.
    """
    manifest = PoolManifest()

    def pairs() -> Iterator[tuple[str, ...]]:
        for source in [*data.pool, *data.extra]:
            count = SourceCount.of(source, data.dir, extra=len(manifest.sources) >= len(data.pool))
            manifest.sources.append(count)
            rows = read_rows(source, SENTENCE_COLUMNS, data.columns, data.dir, notes=count.notes, pool=True)
            yield from without_empty((tuple(as_texts(position, values)) for position, values in rows), count)

    def choose(distinct: np.ndarray) -> np.ndarray:
        of_sources = sum(count.rows - count.empty for count in manifest.sources if not count.extra)
        own, added = np.split(distinct, [np.searchsorted(distinct, of_sources)])
        manifest.distinct, manifest.extra_distinct = len(own), len(added)
        if not len(own):
            raise InputError(f"data.pool: no pair of sentences in {', '.join(data.pool)}")
        if data.extra and not len(added):
            raise InputError(
                f"data.extra: no pair of sentences that data.pool does not hold in {', '.join(data.extra)}"
            )
        added = draw(added, data.extra_pairs, (seed, 1))
        manifest.extra = len(added)
        return np.concatenate([draw(own, data.max_pairs, seed), added])

    manifest.write(folder, pairs(), choose)
    return manifest


def add_mined_pairs(
    given: Path | None, pairs: Iterable[tuple[str, str]], folder: Path, notes: Iterable[str] = ()
) -> PoolManifest:
    """Write a pool into `folder`: the pairs of the pool `given`, if there is one, and mined ones after them.

    `notes` are what is said of the latter.
    """
    manifest, count = PoolManifest(), SourceCount("mined pairs", notes=[*notes], made_here=True)
    known: Iterable[tuple[str, ...]] = ()
    if given is not None:
        manifest, dataset = PoolManifest.load(given)
        known = pairs_of(dataset)
    manifest.sources.append(count)
    before, dropped = manifest.distinct, manifest.duplicates

    def choose(distinct: np.ndarray) -> np.ndarray:
        manifest.distinct, manifest.mined = before, count.rows
        manifest.duplicates += dropped
        return distinct

    manifest.write(folder, chain(known, without_empty(pairs, count)), choose)
    return manifest
