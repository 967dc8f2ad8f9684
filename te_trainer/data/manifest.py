"""Distinct texts in one Arrow file, and a manifest beside it: where they came from, and how many were dropped."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from datasets import Dataset

from te_trainer.data.arrow_io import map_arrow, pair_blocks, read_arrow_rows, write_arrow
from te_trainer.data.digests import file_digest, text_digest
from te_trainer.data.readers import source_file
from te_trainer.files.records import damage_as_input_error, read_json


@dataclass
class SourceCount:
    """What was read of one source.

    Args:
        rows: Number of rows (of sentences, in a `SentenceManifest`) that were read.
        empty: Number of them that were dropped because a text is empty.
        sha256: Hash of the file; None for a source that is no file.
        extra: Whether the source is one of `data.extra`.
        notes: What the reader did to the rows, for people.
    """

    source: str
    rows: int = 0
    empty: int = 0
    sha256: str | None = None
    extra: bool = False
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def of(source: str, benchmark_folder: str | None, extra: bool = False) -> SourceCount:
        """Count nothing yet; hash the source if it is a file."""
        file = source_file(source, benchmark_folder)
        return SourceCount(source, sha256=file_digest(file) if file else None, extra=extra)


@dataclass
class Manifest:
    """Counts of an Arrow file of distinct texts.

    Args:
        sources: Counts by source.
        duplicates: Number of rows that were dropped because an earlier row, of whichever source, is the same.
        distinct: Number of distinct rows before a sample of them was drawn.
        num_rows: Number of rows in the file.
        fingerprint: Hash of the rows in their order.
    """

    title: ClassVar[str]
    source_unit: ClassVar[str]
    unit: ClassVar[str]
    arrow_file: ClassVar[str]
    json_file: ClassVar[str]

    sources: list[SourceCount] = field(default_factory=list)
    duplicates: int = 0
    distinct: int = 0
    num_rows: int = 0
    fingerprint: str = ""

    def describe(self) -> list[str]:
        """The counts for people, one line each."""
        lines = [
            f"{self.title}: {'extra ' * count.extra}{count.source}: {count.rows:,} {self.source_unit}"
            + (f", {count.empty:,} empty ones dropped" if count.empty else "")
            for count in self.sources
        ]
        lines += [f"{self.title}: {note}" for count in self.sources for note in count.notes]
        dropped = f"{self.duplicates:,} duplicates dropped{self._describe_sample()}"
        return [*lines, f"{self.title}: {self.num_rows:,} {self.unit} ({dropped})"]

    def _describe_sample(self) -> str:
        return f", {self.num_rows:,} drawn of {self.distinct:,}" if self.num_rows != self.distinct else ""

    def write(self, folder: Path, texts: Iterable[tuple[str, ...]], choose: Callable[[np.ndarray], np.ndarray]) -> None:
        """Write the distinct texts and this manifest into a folder.

        Duplicates are found by a 64-bit hash of each row: 8 bytes of memory a row; among ten million rows, the chance
        that one is lost to a collision is 3 in a million.

        Args:
            texts: Two sentences a row, or one that becomes a pair with itself. `sources` is complete when all are read.
            choose: Gets the ascending numbers of the distinct rows, gives those to keep in their order. An InputError
                that it raises leaves no manifest.
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
        (folder / self.json_file).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple[Self, Dataset]:
        """Read a manifest and map its rows, with columns `sentence1` and `sentence2`, into memory.

        Raises:
            DamagedError: A file is missing or damaged.
        """
        fix = {"delete": f"the folder {folder}", "then": "the run's command reads the sources again"}
        path = folder / cls.json_file
        values = read_json(path, **fix)
        with damage_as_input_error(path, **fix):
            manifest = cls(**{**values, "sources": [SourceCount(**count) for count in values["sources"]]})
        return manifest, map_arrow(folder / cls.arrow_file, manifest.num_rows, **fix)


def draw_rows(rows: np.ndarray, count: int | None, seed: int | tuple[int, int]) -> np.ndarray:
    """Draw `count` of the rows, in their order; all of them if there are no more, or for None."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size=count, replace=False))
