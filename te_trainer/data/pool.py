"""The pool: unlabelled pairs from one or several sources as one memory-mapped Arrow file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from te_trainer.data.manifest import Manifest, SourceCount, draw_rows
from te_trainer.data.readers import read_texts
from te_trainer.errors import InputError


@dataclass
class PoolManifest(Manifest):
    """Counts of a pool.

    Args:
        distinct: Number of distinct pairs in `data.pool` before a sample of them was drawn.
        extra_distinct: Number of distinct pairs in `data.extra` that `data.pool` does not hold.
        extra: Number of those that were drawn and added.
    """

    title = "pool"
    source_unit = "rows"
    unit = "pairs"
    arrow_file = "pairs.arrow"
    json_file = "pool.json"

    extra_distinct: int = 0
    extra: int = 0

    def _describe_sample(self) -> str:
        own = self.num_rows - self.extra
        drawn = f", {own:,} drawn of {self.distinct:,}" if own != self.distinct else ""
        added = f", {self.extra:,} of {self.extra_distinct:,} extra ones added" if self.extra_distinct else ""
        return drawn + added


def build_pool(
    sources: Sequence[str],
    folder: Path,
    *,
    columns: dict[str, str] | None = None,
    benchmark_folder: str | None = None,
    max_pairs: int | None = None,
    extra: Sequence[str] = (),
    extra_pairs: int | None = None,
    seed: int = 0,
) -> PoolManifest:
    """Read the sources once and write `pairs.arrow` and `pool.json` into `folder`.

    A pair that occurs twice in the same order is kept once. Rows that lack a sentence are dropped.

    Args:
        columns, benchmark_folder: As for `read_rows`.
        max_pairs: Number of pairs to draw from the sources. Default: all.
        extra: Further sources. Of their pairs that no other source holds, drawn or not, `extra_pairs` are drawn and
            added at the end (the paper's Fig. 5). The rest of the pool is the same with and without them.

    Raises:
        InputError: A source cannot be read, a row is broken, or no pair is left of the sources or of the extra ones.
    """
    manifest = PoolManifest()

    def pairs() -> Iterator[tuple[str, ...]]:
        for source in [*sources, *extra]:
            count = SourceCount.of(source, benchmark_folder, extra=len(manifest.sources) >= len(sources))
            manifest.sources.append(count)
            for _, pair in read_texts(source, columns, benchmark_folder, notes=count.notes, pool=True):
                count.rows += 1
                if all(pair):
                    yield tuple(pair)
                else:
                    count.empty += 1

    def choose(distinct: np.ndarray) -> np.ndarray:
        of_sources = sum(count.rows - count.empty for count in manifest.sources if not count.extra)
        own, added = np.split(distinct, [np.searchsorted(distinct, of_sources)])
        manifest.distinct, manifest.extra_distinct = len(own), len(added)
        if not len(own):
            raise InputError(f"data.pool: no pair of sentences in {', '.join(sources)}")
        if extra and not len(added):
            raise InputError(f"data.extra: no pair of sentences that data.pool does not hold in {', '.join(extra)}")
        added = draw_rows(added, extra_pairs, (seed, 1))
        manifest.extra = len(added)
        return np.concatenate([draw_rows(own, max_pairs, seed), added])

    manifest.write(folder, pairs(), choose)
    return manifest
