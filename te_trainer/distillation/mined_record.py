"""What a run says of the pairs that it has mined: why some are lacking, and what the report shows of the others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset

from te_trainer.data.arrow_io import BLOCK_ROWS
from te_trainer.mining.candidates import SOURCES, Candidates
from te_trainer.mining.draw import band_edges, band_of

BINS = 50  # of the record's histograms
EXAMPLE_BANDS, EXAMPLES = 5, 10

LeftOut: TypeAlias = dict[str, dict[str, int]]  # candidates by the reason, then by the source


def describe_nothing(sentences: int, left_out: LeftOut) -> str:
    """Why no candidate is left, and what to do."""
    alike, given = (sum(left_out[name].values()) for name in ("near_duplicates", "in_pool"))
    if not alike + given:
        sources = " and ".join(left_out["in_pool"])
        why, fix = f"no pair can be mined of {sentences:,} sentences by {sources}", "more texts or more mining.sources"
    elif not given:
        why, fix = f"all {alike:,} candidates are near-duplicates", "texts that differ in more of their words"
    else:
        why = f"data.pool holds {'all ' * (not alike)}{given:,} candidates"
        why += f", and the other {alike:,} are near-duplicates" * (alike > 0)
        fix = "other texts, a higher mining.candidates or more mining.sources"
    return f"{why}; give {fix}, and another output_dir"


def describe_candidates(wanted: int, drawn: int, candidates: int, sentences: int, left_out: LeftOut) -> list[str]:
    """How many candidates were left out, and of fewer pairs than were wanted, which keys give more; a line each."""
    alike, given = (sum(left_out[name].values()) for name in ("near_duplicates", "in_pool"))
    parts = [f"{alike:,} as near-duplicates"] * (alike > 0) + [f"{given:,} because data.pool holds them"] * (given > 0)
    lines = [f"left out of the candidates: {', '.join(parts)}"] if parts else []
    if drawn < wanted:
        fix = "" if drawn == candidates else ", a higher mining.per_sentence"
        if candidates + alike + given < sentences * (sentences - 1) // 2:
            fix += ", a higher mining.candidates or more mining.sources"
        found = f"{drawn:,} of {wanted:,} wanted pairs (mining.pairs) were found"
        lines.append(f"{found}; more {'different ' * (alike > 0)}sentences{fix} would give more")
    return lines


def describe_mining(
    sentences: Dataset, candidates: Candidates, scores: np.ndarray, drawn: np.ndarray
) -> dict[str, Any]:
    """What the report says of mined pairs; `pairs` are those that were drawn.

    Returns:
        `{"candidates": {source: n}, "pairs": {source: n}, "histogram": {"edges", "candidates", "pairs"}, "examples":
        [{"from": f, "to": f, "pairs": [[sentence1, sentence2, score, source]]}]}`
    """
    edges = np.linspace(scores.min(), scores.max(), BINS + 1)
    bands = band_edges(scores, EXAMPLE_BANDS)
    # the outer bands hold what is beyond them, too
    bands[[0, -1]] = scores.min(), scores.max()
    band = band_of(scores[drawn], bands)
    examples = []
    for number, (low, high) in enumerate(pairwise(bands.tolist())):
        here = drawn[band == number][:: max(1, int((band == number).sum()) // EXAMPLES)][:EXAMPLES]
        texts = texts_of(sentences, candidates.rows[here])
        shown = [
            [one, two, round(float(scores[index]), 4), SOURCES[candidates.source[index]]]
            for (one, two), index in zip(texts, here, strict=True)
        ]
        examples.append({"from": round(low, 4), "to": round(high, 4), "pairs": shown})
    return {
        "candidates": by_source(candidates.source),
        "pairs": by_source(candidates.source[drawn]),
        "histogram": {
            "edges": [round(edge, 6) for edge in edges.tolist()],
            "candidates": np.histogram(scores, edges)[0].tolist(),
            "pairs": np.histogram(scores[drawn], edges)[0].tolist(),
        },
        "examples": examples,
    }


def by_source(source: np.ndarray) -> dict[str, int]:
    """How many there are of each source, of those that there are any of; `source` is that of `Candidates`."""
    counts = np.bincount(source, minlength=len(SOURCES)).tolist()
    return {name: count for name, count in zip(SOURCES, counts, strict=True) if count}


def texts_of(sentences: Dataset, rows: np.ndarray) -> Iterator[tuple[str, str]]:
    """The texts of pairs of rows."""
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        columns = [sentences[block[:, side].tolist()]["sentence1"] for side in (0, 1)]
        yield from zip(*columns, strict=True)
