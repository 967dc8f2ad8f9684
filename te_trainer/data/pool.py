"""The pool: unlabelled pairs from one or several sources as one memory-mapped Arrow file."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from te_trainer.data.benchmarks import BENCHMARKS
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError
from te_trainer.files.records import damage_as_input_error, read_json

SCHEMA = pa.schema([("sentence1", pa.string()), ("sentence2", pa.string())])
BLOCK = 10_000  # rows in an Arrow record batch, and in memory while a pool is built


@dataclass
class SourceCount:
    """What one source gave; `extra` where it is one of `data.extra`, `notes` on what was done to its rows."""

    source: str
    rows: int = 0
    empty: int = 0
    sha256: str | None = None
    extra: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class Pool:
    """The pairs, and how they came to be.

    Args:
        sources: rows read and empty rows dropped, by source.
        duplicates: rows dropped because the same pair stood before, in whichever source.
        distinct: pairs of the pool's sources left before a subsample was drawn.
        extra_distinct: pairs of the extra sources that are in none of the pool's.
        extra: pairs drawn of those and added.
        pairs: pairs in the pool, added ones included.
        fingerprint: of the pairs in their order.
    """

    sources: list[SourceCount] = field(default_factory=list)
    duplicates: int = 0
    distinct: int = 0
    extra_distinct: int = 0
    extra: int = 0
    pairs: int = 0
    fingerprint: str = ""

    def describe(self) -> list[str]:
        """The counts, a line each, to print before work starts."""
        lines = [
            f"pool: {'extra ' * count.extra}{count.source}: {count.rows:,} rows"
            + (f", {count.empty:,} empty ones dropped" if count.empty else "")
            for count in self.sources
        ]
        lines += [f"pool: {note}" for count in self.sources for note in count.notes]
        own = self.pairs - self.extra
        sampled = f", {own:,} drawn of {self.distinct:,}" if own != self.distinct else ""
        if self.extra_distinct:
            sampled += f", {self.extra:,} of {self.extra_distinct:,} extra ones added"
        lines.append(f"pool: {self.pairs:,} pairs ({self.duplicates:,} duplicates dropped{sampled})")
        return lines

    @staticmethod
    def load(folder: Path) -> tuple[Pool, Dataset]:
        """Read a pool back; the pairs stay on disk, mapped into memory.

        Raises:
            DamagedError: a file of it is missing or damaged.
        """
        again = {"delete": f"the folder {folder}", "then": "the run's command reads the sources again"}
        values = read_json(folder / "pool.json", **again)
        with damage_as_input_error(folder / "pool.json", **again):
            pool = Pool(**{**values, "sources": [SourceCount(**count) for count in values["sources"]]})
        return pool, load_blocks(folder / "pairs.arrow", pool.pairs, **again)


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
) -> Pool:
    """Read the sources once and write `pairs.arrow` and `pool.json` into `folder`.

    A pair that stands twice in the same order is kept once; empty rows are dropped; both are counted. Duplicates are
    found by a 64-bit hash of each pair (8 bytes of memory a row; among ten million pairs, the chance that one pair is
    lost to a collision is 3 in a million).

    Args:
        max_pairs: draw so many of the sources' pairs.
        extra: more sources; of their pairs that no source holds, drawn or not, `extra_pairs` are drawn and added at the
            end (the paper's Fig. 5). The rest of the pool is the same with and without them.

    Raises:
        InputError: a source cannot be read, a row is broken, or no pair is left, of the sources or of the extra ones.
    """
    pool = Pool()
    folder.mkdir(parents=True, exist_ok=True)
    raw, final = folder / "read.arrow", folder / "pairs.arrow"
    hashes = array("Q")
    listed = [(source, False) for source in sources] + [(source, True) for source in extra]
    write_blocks(raw, _blocks(pool, listed, columns or {}, benchmark_folder, hashes))
    digests = np.frombuffer(hashes, dtype=np.uint64)
    distinct = np.sort(np.unique(digests, return_index=True)[1])
    pool.duplicates = len(digests) - len(distinct)
    own = np.searchsorted(distinct, sum(count.rows - count.empty for count in pool.sources if not count.extra))
    pool.distinct, pool.extra_distinct = int(own), int(len(distinct) - own)
    if not pool.distinct:
        raise InputError(f"data.pool: no pair of sentences in {', '.join(sources)}")
    if extra and not pool.extra_distinct:
        raise InputError(f"data.extra: no pair of sentences that data.pool does not hold in {', '.join(extra)}")
    added = _drawn(distinct[own:], extra_pairs, np.random.default_rng((seed, 1)))
    kept = np.concatenate([_drawn(distinct[:own], max_pairs, np.random.default_rng(seed)), added])
    pool.extra = len(added)
    if len(kept) == len(digests):
        raw.replace(final)
    else:
        write_blocks(final, filtered_blocks(raw, kept))
        raw.unlink()
    pool.pairs = len(kept)
    pool.fingerprint = hashlib.sha256(digests[kept].tobytes()).hexdigest()[:16]
    (folder / "pool.json").write_text(json.dumps(asdict(pool), indent=2) + "\n", encoding="utf-8")
    return pool


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_file(source: str, benchmark_folder: str | None) -> Path | None:
    """The file that a source is, or that holds a benchmark in a folder; None for what is no file."""
    path = Path(source)
    if source in BENCHMARKS and benchmark_folder is not None and not path.exists():
        path = Path(benchmark_folder, f"{source}.tsv")
    return path if path.is_file() else None


def pair_digest(*texts: str) -> int:
    """A 64-bit hash of one or more texts, the same on every machine."""
    joined = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def _blocks(
    pool: Pool,
    sources: Iterable[tuple[str, bool]],
    columns: dict[str, str],
    benchmark_folder: str | None,
    hashes: array[int],
) -> Iterator[pa.RecordBatch]:
    first: list[str] = []
    second: list[str] = []
    for source, extra in sources:
        file = source_file(source, benchmark_folder)
        count = SourceCount(source, sha256=file_digest(file) if file else None, extra=extra)
        pool.sources.append(count)
        for place, values in read_rows(
            source, ["sentence1", "sentence2"], columns, benchmark_folder, notes=count.notes, pool=True
        ):
            count.rows += 1
            one, two = ("" if value is None else value for value in values)
            if not isinstance(one, str) or not isinstance(two, str):
                raise InputError(f"{place}: a sentence is not text; mend or remove the row")
            one, two = one.strip(), two.strip()
            if not one or not two:
                count.empty += 1
                continue
            hashes.append(pair_digest(one, two))
            first.append(one)
            second.append(two)
            if len(first) == BLOCK:
                yield pa.record_batch([first, second], schema=SCHEMA)
                first, second = [], []
    if first:
        yield pa.record_batch([first, second], schema=SCHEMA)


def _drawn(rows: np.ndarray, count: int | None, generator: np.random.Generator) -> np.ndarray:
    """So many of the rows, in their order; all of them where there are no more."""
    if count is None or count >= len(rows):
        return rows
    return np.sort(generator.choice(rows, size=count, replace=False))


def filtered_blocks(path: Path, kept: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow file whose numbers are in `kept`, which ascends."""
    start = 0
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            inside = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + len(batch))]
            if len(inside):
                yield batch.take(pa.array(inside - start))
            start += len(batch)


def load_blocks(path: Path, rows: int, **again: str) -> Dataset:
    """Map an Arrow file of so many rows into memory.

    Args:
        again: as for `damage_as_input_error`.

    Raises:
        DamagedError: it is missing or damaged.
    """
    with damage_as_input_error(path, **again):
        found = Dataset.from_file(str(path))
        if len(found) != rows:
            raise ValueError("it was cut")
        return found


def write_blocks(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write pairs as one Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)
