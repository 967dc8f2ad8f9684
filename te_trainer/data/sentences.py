"""Distinct sentences from one or several sources, each as a pair with itself, in one memory-mapped Arrow file."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from te_trainer.data.pool import (
    BLOCK,
    SCHEMA,
    SourceCount,
    file_digest,
    filtered_blocks,
    load_blocks,
    pair_digest,
    source_file,
    write_blocks,
)
from te_trainer.data.readers import Row, read_lines, read_rows
from te_trainer.errors import InputError
from te_trainer.files.records import damage_as_input_error, read_json


@dataclass
class Sentences:
    """How many there are, and how they came to be.

    Args:
        sources: sentences read and empty ones dropped, by source.
        duplicates: sentences dropped because the same one stood before, in whichever source.
        distinct: sentences left before a subsample was drawn.
        sentences: sentences left.
        fingerprint: of the sentences in their order.
    """

    sources: list[SourceCount] = field(default_factory=list)
    duplicates: int = 0
    distinct: int = 0
    sentences: int = 0
    fingerprint: str = ""

    def describe(self) -> list[str]:
        """The counts, a line each, to print before work starts."""
        lines = [
            f"sentences: {count.source}: {count.rows:,} read"
            + (f", {count.empty:,} empty ones dropped" if count.empty else "")
            for count in self.sources
        ]
        lines += [f"sentences: {note}" for count in self.sources for note in count.notes]
        sampled = f", drawn of {self.distinct:,}" if self.sentences != self.distinct else ""
        lines.append(f"sentences: {self.sentences:,} distinct ones ({self.duplicates:,} duplicates dropped{sampled})")
        return lines

    @staticmethod
    def load(folder: Path, delete: Path | None = None) -> tuple[Sentences, Dataset]:
        """Read them back, with columns `sentence1` and `sentence2` of the same text, mapped into memory.

        Args:
            delete: the folder whose absence makes a run write them again, where it is another one.

        Raises:
            DamagedError: a file of theirs is missing or damaged.
        """
        again = {"delete": f"the folder {delete or folder}", "then": "the run's command reads the sources again"}
        values = read_json(folder / "sentences.json", **again)
        with damage_as_input_error(folder / "sentences.json", **again):
            found = Sentences(**{**values, "sources": [SourceCount(**count) for count in values["sources"]]})
        return found, load_blocks(folder / "sentences.arrow", found.sentences, **again)


def build_sentences(
    sources: Iterable[str],
    folder: Path,
    *,
    column: str | None = None,
    columns: dict[str, str] | None = None,
    split: str | None = None,
    benchmark_folder: str | None = None,
    max_sentences: int | None = None,
    seed: int = 0,
    key: str = "data.sentences",
) -> Sentences:
    """Read the sources once and write `sentences.arrow` and `sentences.json` into `folder`.

    A sentence is kept once: twice in a batch, it would be its own negative. Duplicates are found by a 64-bit hash.

    Args:
        column: read this one instead of `sentence1` and `sentence2`; a `.txt` file has a sentence a line.
        columns: names that the sources use for `sentence1` and `sentence2`.
        split: only rows of this split, where a source has splits.
        max_sentences: draw so many of them.
        key: of the configuration, that names the sources.

    Raises:
        InputError: a source cannot be read, a row is broken, or no sentence is left.
    """
    wanted = [column] if column else ["sentence1", "sentence2"]

    def rows(source: str, notes: list[str]) -> Iterator[Row]:
        if Path(source).suffix.lower() == ".txt":
            return read_lines(source, notes)
        return read_rows(source, wanted, columns or {}, benchmark_folder, split, notes)

    found = Sentences()

    def texts() -> Iterator[str]:
        for source in sources:
            file = source_file(source, benchmark_folder)
            count = SourceCount(source, sha256=file_digest(file) if file else None)
            found.sources.append(count)
            yield from _texts(rows(source, count.notes), count)

    _write(found, texts(), folder, max_sentences, seed)
    if not found.sentences:
        raise InputError(f"{key}: no sentence in {', '.join(count.source for count in found.sources)}")
    return found


def sentences_of_pool(pairs: Dataset, folder: Path, *, max_sentences: int | None = None, seed: int = 0) -> Sentences:
    """The distinct sentences of a pool's pairs, as `build_sentences` writes them."""
    count = SourceCount("pool")
    rows = (
        ("pool", list(row))
        for block in pairs.iter(batch_size=BLOCK)
        for row in zip(block["sentence1"], block["sentence2"], strict=True)
    )
    found = Sentences([count])
    _write(found, _texts(rows, count), folder, max_sentences, seed)
    return found


def _texts(rows: Iterable[Row], count: SourceCount) -> Iterator[str]:
    for place, values in rows:
        for value in values:
            if value is not None and not isinstance(value, str):
                raise InputError(f"{place}: a sentence is not text; mend or remove the row")
            count.rows += 1
            if text := (value or "").strip():
                yield text
            else:
                count.empty += 1


def _write(found: Sentences, texts: Iterable[str], folder: Path, most: int | None, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    raw, final = folder / "read.arrow", folder / "sentences.arrow"
    hashes = array("Q")
    write_blocks(raw, _blocks(texts, hashes))
    digests = np.frombuffer(hashes, dtype=np.uint64)
    kept = np.sort(np.unique(digests, return_index=True)[1])
    found.duplicates = len(digests) - len(kept)
    found.distinct = len(kept)
    if most is not None and most < len(kept):
        kept = np.sort(np.random.default_rng((seed, 2)).choice(kept, size=most, replace=False))
    write_blocks(final, filtered_blocks(raw, kept))
    raw.unlink()
    found.sentences = len(kept)
    found.fingerprint = hashlib.sha256(digests[kept].tobytes()).hexdigest()[:16]
    (folder / "sentences.json").write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")


def _blocks(texts: Iterable[str], hashes: array[int]) -> Iterator[pa.RecordBatch]:
    block: list[Any] = []
    for text in texts:
        hashes.append(pair_digest(text))
        block.append(text)
        if len(block) == BLOCK:
            yield pa.record_batch([block, block], schema=SCHEMA)
            block = []
    if block:
        yield pa.record_batch([block, block], schema=SCHEMA)
