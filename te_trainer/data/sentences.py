"""Distinct sentences from one or several sources, each as a pair with itself, in one memory-mapped Arrow file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import Dataset

from te_trainer.data.arrow_io import BLOCK_ROWS, SENTENCE_COLUMNS
from te_trainer.data.manifest import Manifest, SourceCount, draw_rows
from te_trainer.data.readers import read_lines, read_texts
from te_trainer.errors import InputError


@dataclass
class SentenceManifest(Manifest):
    """Counts of distinct sentences."""

    title = "sentences"
    source_unit = "read"
    unit = "distinct ones"
    arrow_file = "sentences.arrow"
    json_file = "sentences.json"


def build_sentences(
    sources: Sequence[str],
    folder: Path,
    *,
    column: str | None = None,
    columns: dict[str, str] | None = None,
    split: str | None = None,
    benchmark_folder: str | None = None,
    max_sentences: int | None = None,
    seed: int = 0,
    key: str = "data.sentences",
) -> SentenceManifest:
    """Read the sources once and write `sentences.arrow` and `sentences.json` into `folder`.

    A sentence is kept once: twice in a batch, it would be its own negative. A `.txt` file has one sentence a line, or
    several with `||` between them.

    Args:
        column: Name of the column to read instead of `sentence1` and `sentence2`.
        columns, split, benchmark_folder: As for `read_rows`.
        max_sentences: Number of sentences to draw. Default: all.
        key: Configuration key that names the sources, for errors.

    Raises:
        InputError: A source cannot be read, a row is broken, or no sentence is left.
    """
    manifest = SentenceManifest()
    wanted = [column] if column else SENTENCE_COLUMNS

    def texts() -> Iterator[tuple[str]]:
        for source in sources:
            count = SourceCount.of(source, benchmark_folder)
            manifest.sources.append(count)
            if Path(source).suffix.lower() == ".txt":
                rows = read_lines(source, count.notes)
            else:
                rows = read_texts(source, columns, benchmark_folder, split, count.notes, wanted=wanted)
            yield from _count_sentences((values for _, values in rows), count)

    manifest.write(folder, texts(), partial(draw_rows, count=max_sentences, seed=(seed, 2)))
    if not manifest.num_rows:
        raise InputError(f"{key}: no sentence in {', '.join(sources)}")
    return manifest


def sentences_of_pool(
    pairs: Dataset, folder: Path, *, max_sentences: int | None = None, seed: int = 0
) -> SentenceManifest:
    """Write the distinct sentences of a pool's pairs as `build_sentences` writes them."""
    count = SourceCount("pool")
    manifest = SentenceManifest([count])
    rows = (
        row
        for block in pairs.iter(batch_size=BLOCK_ROWS)
        for row in zip(*(block[name] for name in SENTENCE_COLUMNS), strict=True)
    )
    choose = partial(draw_rows, count=max_sentences, seed=(seed, 2))
    manifest.write(folder, _count_sentences(rows, count), choose)
    return manifest


def _count_sentences(rows: Iterable[Iterable[str]], count: SourceCount) -> Iterator[tuple[str]]:
    for row in rows:
        for text in row:
            count.rows += 1
            if text:
                yield (text,)
            else:
                count.empty += 1
