"""Distinct texts in a memory-mapped Arrow file, with a manifest of their sources."""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from datasets import Dataset

from te_trainer.data.arrow_io import pair_blocks, read_arrow_rows, write_arrow
from te_trainer.data.digests import source_digest, text_digest
from te_trainer.data.readers import source_path
from te_trainer.files.disk_errors import source_errors_as_input_error
from te_trainer.files.records import DamagedError, damage_as_input_error, read_json, write_json

MANY_ALIKE = 0.2  # part of the rows from which on it is said that they hold one text twice


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
    alike: int = 0  # rows in the file that hold one text twice; of single texts none

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
        lines.append(f"{title}: {self.num_rows:,} {self.unit} ({dropped}{added})")
        if self.alike > MANY_ALIKE * self.num_rows:
            lines.append(
                f"{title}: {self.alike:,} of them hold the same text twice; any bi-encoder gives these a cosine of 1, "
                "and nothing is learnt from them"
            )
        return lines

    def write(self, folder: Path, texts: Iterable[tuple[str, ...]], choose: Callable[[np.ndarray], np.ndarray]) -> None:
        """Write the distinct texts and this manifest into a folder.

        Duplicates are found by a 64-bit hash of each row: 8 bytes of memory a row; among ten million rows, the chance
        that one is lost to a collision is 3 in a million.

        `choose` gets the ascending numbers of the distinct rows and gives those to keep, in their order. A text that is
        alone in its row becomes a pair with itself.
        """
        folder.mkdir(parents=True, exist_ok=True)
        raw, final = folder / "read.arrow", folder / self.arrow_file
        hashes, alike = array("Q"), bytearray()

        def rows() -> Iterator[tuple[str, ...]]:
            for row in texts:
                hashes.append(text_digest(*row))
                alike.append(len(row) > len({*row}))
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
        self.num_rows, self.alike = len(kept), int(np.frombuffer(alike, dtype=np.uint8)[kept].sum())
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


def without_empty(rows: Iterable[tuple[str, ...]], count: SourceCount) -> Iterator[tuple[str, ...]]:
    """Count the rows, and drop those that lack a text."""
    for row in rows:
        count.rows += 1
        if all(row):
            yield row
        else:
            count.empty += 1


def draw(rows: np.ndarray, count: int | None, seed: int | tuple[int, int]) -> np.ndarray:
    """Draw so many of the rows, in their order; all of them if there are no more, or for None."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size=count, replace=False))
