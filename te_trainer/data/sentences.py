"""Distinct sentences, and the unbroken parts of the documents that they stand in."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import Dataset

from te_trainer.config.schema import ContrastiveDataConfig
from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data.arrow_io import pairs_of
from te_trainer.data.compression import file_format
from te_trainer.data.digests import text_digest
from te_trainer.data.readers import read_rows
from te_trainer.data.text_file import Manifest, SourceCount, draw, without_empty
from te_trainer.data.texts import as_texts
from te_trainer.errors import InputError, MissingColumnError


class SentenceManifest(Manifest):
    """Counts of distinct sentences."""

    title, source_unit, unit = "sentences", "read", "distinct ones"
    arrow_file, json_file = "sentences.arrow", "sentences.json"


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
            yield from without_empty(((text,) for pair in pairs_of(pool) for text in dict.fromkeys(pair)), count)

    def _sentences(source: str, count: SourceCount) -> Iterator[tuple[str, str]]:
        is_txt = file_format(Path(source)) == ".txt"
        if document is not None and is_txt:
            raise InputError(f"{source}: a .txt file has no column '{document}' (data.document); give .csv or .jsonl")
        one = data.column or ("sentence" if is_txt else None)
        wanted = ([one] if one else list(SENTENCE_COLUMNS)) + ([document] if document is not None else [])
        split_lines = 0
        try:
            for position, values in read_rows(source, wanted, data.columns, data.dir, data.split, count.notes):
                split_lines += is_txt and len(values) > 1
                name = values.pop() if document is not None else None
                name = "" if name is None or name != name else str(name).strip()  # NaN
                yield from ((text, name) for text in as_texts(position, values, wanted))
        except MissingColumnError as error:
            if one is not None:
                raise
            raise MissingColumnError(f"{error}, or name the one column of texts with data.column") from None
        if split_lines:
            count.notes.append(f"{source}: {split_lines:,} lines were split at ||, which stands between sentences")

    def choose(distinct: np.ndarray) -> np.ndarray:
        kept = draw(distinct, data.max_sentences, (seed, 2))
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
