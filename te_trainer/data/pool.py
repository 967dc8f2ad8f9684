"""Pairs and sentences in memory-mapped Arrow files: distinct ones with a manifest of their sources, or every row."""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from te_trainer.config.schema import ContrastiveDataConfig, DataConfig
from te_trainer.data.arrow_io import (
    BLOCK_ROWS,
    SENTENCE_COLUMNS,
    pair_blocks,
    read_arrow_rows,
    write_arrow,
)
from te_trainer.data.compression import file_format
from te_trainer.data.digests import source_digest, text_digest
from te_trainer.data.other_columns import OtherColumns
from te_trainer.data.readers import read_rows, source_path
from te_trainer.data.texts import as_texts
from te_trainer.errors import InputError, MissingColumnError
from te_trainer.files.disk_errors import source_errors_as_input_error
from te_trainer.files.records import DamagedError, damage_as_input_error, read_json, write_json


@dataclass
class SourceCount:
    """What was read of one source."""

    source: str
    rows: int = 0  # that were read; in a `SentenceManifest`, sentences
    empty: int = 0  # of them, dropped because a text is empty
    sha256: str | None = None  # of the file or the saved Dataset; None for a source that is not on this machine
    extra: bool = False  # whether it is one of `data.extra`
    notes: list[str] = field(default_factory=list)  # what the reader did to the rows, for people
    made_here: bool = False  # whether it is no source: the run's own sentences, or pairs that were mined

    @staticmethod
    def of(source: str, benchmark_folder: str | None, extra: bool = False) -> SourceCount:
        """Count nothing yet; hash the source if it is on this machine."""
        path = source_path(source, benchmark_folder)
        with source_errors_as_input_error(source):
            return SourceCount(source, sha256=source_digest(path) if path else None, extra=extra)


@dataclass
class Manifest:
    """Counts of an Arrow file of distinct texts."""

    title: ClassVar[str]
    source_unit: ClassVar[str]
    unit: ClassVar[str]
    arrow_file: ClassVar[str]
    json_file: ClassVar[str]

    sources: list[SourceCount] = field(default_factory=list)
    duplicates: int = 0  # rows that were dropped because an earlier one, of whichever source, is the same
    distinct: int = 0  # rows, without those of `data.extra`, before a sample of them was drawn
    num_rows: int = 0  # in the file
    fingerprint: str = ""  # hash of the rows in their order
    extra_distinct: int = 0  # pairs in `data.extra` that `data.pool` does not hold
    extra: int = 0  # of those, drawn and added
    mined: int = 0  # pairs that were mined and added

    def describe(self, title: str | None = None) -> list[str]:
        """The counts for people, one line each, which begins with a title."""
        title = title or self.title
        lines = [
            f"{title}: {'extra ' * count.extra}{count.source}: {count.rows:,} {self.source_unit}"
            + (f", {count.empty:,} empty ones dropped" if count.empty else "")
            for count in self.sources
        ]
        lines += [f"{title}: {note}" for count in self.sources for note in count.notes]
        own = self.num_rows - self.extra - self.mined
        dropped = f"{self.duplicates:,} duplicates dropped" + (
            f", {own:,} drawn of {self.distinct:,}" * (own != self.distinct)
        )
        added = f", {self.extra:,} of {self.extra_distinct:,} extra ones added" if self.extra_distinct else ""
        added += f", {self.mined:,} mined ones added" * (own > 0 and self.mined > 0)
        return [*lines, f"{title}: {self.num_rows:,} {self.unit} ({dropped}{added})"]

    def write(self, folder: Path, texts: Iterable[tuple[str, ...]], choose: Callable[[np.ndarray], np.ndarray]) -> None:
        """Write the distinct texts and this manifest into a folder.

        Duplicates are found by a 64-bit hash of each row: 8 bytes of memory a row; among ten million rows, the chance
        that one is lost to a collision is 3 in a million.

        `choose` gets the ascending numbers of the distinct rows and gives those to keep, in their order. A text that is
        alone in its row becomes a pair with itself.
        """
        folder.mkdir(parents=True, exist_ok=True)
        raw, final = folder / "read.arrow", folder / self.arrow_file
        hashes = array("Q")

        def rows() -> Iterator[tuple[str, ...]]:
            for row in texts:
                hashes.append(text_digest(*row))
                yield row * 2 if len(row) == 1 else row

        write_arrow(raw, pair_blocks(rows()))
        digests = np.frombuffer(hashes, dtype=np.uint64)
        distinct = np.sort(np.unique(digests, return_index=True)[1])
        self.duplicates, self.distinct = len(digests) - len(distinct), len(distinct)
        kept = choose(distinct)
        if len(kept) == len(digests):
            raw.replace(final)
        else:
            write_arrow(final, read_arrow_rows(raw, kept))
            raw.unlink()
        self.num_rows = len(kept)
        self.fingerprint = hashlib.sha256(digests[kept].tobytes()).hexdigest()[:16]
        write_json(folder / self.json_file, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> tuple[Self, Dataset]:
        """Read a manifest and map its rows, with columns `sentence1` and `sentence2`, into memory.

        Raises:
            DamagedError: A file is missing or damaged.
        """
        fix = {"delete": f"the folder {folder}", "then": "the run's command reads the sources again"}
        path, arrow = folder / cls.json_file, folder / cls.arrow_file
        values = read_json(path, **fix)
        with damage_as_input_error(path, **fix):
            manifest = cls(**{**values, "sources": [SourceCount(**count) for count in values["sources"]]})
        with damage_as_input_error(arrow, **fix):
            dataset = Dataset.from_file(str(arrow))
            if len(dataset) != manifest.num_rows:
                raise ValueError("the file was cut")
        return manifest, dataset

    @classmethod
    def read_sources(cls, folder: Path) -> list[SourceCount]:
        """The sources alone; none where the manifest is gone or damaged."""
        with contextlib.suppress(DamagedError):
            return [SourceCount(**count) for count in read_json(folder / cls.json_file, "sources")["sources"]]
        return []


class PoolManifest(Manifest):
    """Counts of a pool of pairs."""

    title, source_unit, unit = "pool", "rows", "pairs"
    arrow_file, json_file = "pairs.arrow", "pool.json"


class SentenceManifest(Manifest):
    """Counts of distinct sentences."""

    title, source_unit, unit = "sentences", "read", "distinct ones"
    arrow_file, json_file = "sentences.arrow", "sentences.json"


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
            yield from _without_empty((tuple(as_texts(place, values)) for place, values in rows), count)

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
        added = _draw(added, data.extra_pairs, (seed, 1))
        manifest.extra = len(added)
        return np.concatenate([_draw(own, data.max_pairs, seed), added])

    manifest.write(folder, pairs(), choose)
    return manifest


def build_sentences(
    data: ContrastiveDataConfig,
    folder: Path,
    *,
    document: str | None = None,
    pool: Dataset | None = None,
    seed: int = 0,
    key: str = "data.sentences",
) -> SentenceManifest:
    """Read the sources of sentences once and write `sentences.arrow` and `sentences.json` into `folder`.

    A sentence is kept once: twice in a batch, it would be its own negative. A `.txt` file has one sentence a line, or
    several with `||` between them.

    Args:
        document: Column that names each row's document. `documents.npy`, int64 of shape (n,), then numbers their
            unbroken parts: one ends where a sentence was dropped, because its neighbours do not stand side by side. A
            sentence without a document gets a number of its own.
        pool: Pairs whose sentences are added.
    """
    manifest, documents = SentenceManifest(), array("Q")

    def texts() -> Iterator[tuple[str, ...]]:
        for source in data.sentences:
            count = SourceCount.of(source, data.dir)
            manifest.sources.append(count)
            for text, document_name in _sentences(source, count):
                count.rows += 1
                count.empty += not text
                if text:
                    documents.append(text_digest(source, document_name) if document_name else len(documents))
                    yield (text,)
            if data.split and not count.rows:
                raise InputError(f"{source}: no row has the split '{data.split}' (data.split); name another one")
        if pool is not None:
            manifest.sources.append(count := SourceCount("the run's texts", made_here=True))
            # a sentence that stands in both columns is one
            yield from _without_empty(((text,) for pair in pairs_of(pool) for text in dict.fromkeys(pair)), count)

    def _sentences(source: str, count: SourceCount) -> Iterator[tuple[str, str]]:
        is_txt = file_format(Path(source)) == ".txt"
        if document is not None and is_txt:
            raise InputError(f"{source}: a .txt file has no column '{document}' (data.document); give .csv or .jsonl")
        one = data.column or ("sentence" if is_txt else None)
        wanted = ([one] if one else list(SENTENCE_COLUMNS)) + ([document] if document is not None else [])
        split_lines = 0
        try:
            for place, values in read_rows(source, wanted, data.columns, data.dir, data.split, count.notes):
                split_lines += is_txt and len(values) > 1
                name = values.pop() if document is not None else None
                name = "" if name is None or name != name else str(name).strip()  # NaN
                yield from ((text, name) for text in as_texts(place, values))
        except MissingColumnError as error:
            if one is not None:
                raise
            raise MissingColumnError(f"{error}, or name the one column of texts with data.column") from None
        if split_lines:
            count.notes.append(f"{source}: {split_lines:,} lines were split at ||, which stands between sentences")

    def choose(distinct: np.ndarray) -> np.ndarray:
        kept = _draw(distinct, data.max_sentences, (seed, 2))
        if document is not None:
            # sentences of the pool are in no document
            known = np.frombuffer(documents, dtype=np.uint64)
            lacking = np.arange(len(known), kept.max(initial=-1) + 1, dtype=np.uint64)
            np.save(folder / "documents.npy", _unbroken_parts(np.concatenate([known, lacking]), kept))
        return kept

    manifest.write(folder, texts(), choose)
    if not manifest.num_rows:
        raise InputError(f"{key}: no sentence in {', '.join(data.sentences)}")
    return manifest


def add_mined_pairs(
    given: Path | None, pairs: Iterable[tuple[str, str]], folder: Path, notes: Iterable[str] = ()
) -> PoolManifest:
    """Write a pool into `folder`: the pairs of the pool `given`, if there is one, and mined ones behind them.

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

    manifest.write(folder, chain(known, _without_empty(pairs, count)), choose)
    return manifest


def write_rows(source: str, file: Path, others: OtherColumns | None = None, **reading: Any) -> list[str]:
    """Write all rows of a source of pairs in their order, duplicates included; says what the reader did to them.

    A sentence that a row lacks becomes an empty text. `others`, if given, receives the source's other columns.
    """
    notes: list[str] = []
    rows = read_rows(source, SENTENCE_COLUMNS, notes=notes, others=others is not None, **reading)
    plain = rows if others is None else others.set_aside(rows)
    write_arrow(file, pair_blocks(as_texts(place, values) for place, values in plain))
    if not len(rows_with_both(Dataset.from_file(str(file)))):
        split = reading.get("split")
        raise InputError(f"data.pairs: no pair of sentences in {source}" + (f", split '{split}'" if split else ""))
    return notes


def rows_with_both(pairs: Dataset) -> np.ndarray:
    """Ascending numbers of the rows in which neither sentence is empty."""
    empty = pc.or_(*(pc.equal(pairs.data.column(name), "") for name in SENTENCE_COLUMNS))
    return np.flatnonzero(~empty.to_numpy())


def pairs_of(pairs: Dataset) -> Iterator[tuple[str, ...]]:
    """The pairs of a pool one by one."""
    for block in pairs.iter(batch_size=BLOCK_ROWS):
        yield from zip(*map(block.get, SENTENCE_COLUMNS), strict=True)


def _without_empty(rows: Iterable[tuple[str, ...]], count: SourceCount) -> Iterator[tuple[str, ...]]:
    """Count the rows, and drop those that lack a text."""
    for row in rows:
        count.rows += 1
        if all(row):
            yield row
        else:
            count.empty += 1


def _unbroken_parts(documents: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Number the parts of documents that lie between rows that are not kept: int64, one number for each kept row.

    `documents` has a number for each row, shape (n,); rows of several documents may alternate.
    """
    order = np.argsort(documents, kind="stable")
    begins = np.ones(len(documents), dtype=bool)
    begins[kept] = False
    begins = begins[order]
    begins[1:] |= np.diff(documents[order]) != 0
    parts = np.empty(len(documents), dtype=np.int64)
    parts[order] = np.cumsum(begins)
    numbers: np.ndarray = parts[kept]
    return numbers


def _draw(rows: np.ndarray, count: int | None, seed: int | tuple[int, int]) -> np.ndarray:
    """Draw so many of the rows, in their order; all of them if there are no more, or for None."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size=count, replace=False))
