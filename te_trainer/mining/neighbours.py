"""The nearest sentences of some sentences: exact, or by an approximate index where that would take long."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from te_trainer.distributed import SharedArray, device_type, on_main_process, process_state
from te_trainer.errors import InputError
from te_trainer.labelling import Progress
from te_trainer.mining.candidates import pairs_with_anchors
from te_trainer.search import nearest

# Cosines that are computed one by one, at most: those of 100,000 sentences that look for partners among a million.
EXACT_UP_TO = 10**11
TIMES_ON_ACCELERATOR = 100  # a GPU computes so many times as many cosines in about the same time
LISTS_PER_ROOT, SAMPLE_PER_LIST, ITERATIONS = 4, 40, 10  # k-means: lists for n vectors, vectors that it sees, passes
PROBED = 8  # a search looks into one of so many lists
BLOCK = 16_384  # vectors that are normalised at once


def nearest_pairs(vectors: np.ndarray, anchors: np.ndarray, k: int, scratch: Path, progress: Progress) -> np.ndarray:
    """Pair each anchor with the `k` sentences, or all others, of the highest cosine.

    All ranks call it, and all get the pairs. Up to `exact_up_to` cosines all ranks search exactly; above, the first one
    searches an inverted file of faiss, on its CPU, which misses some.

    Args:
        vectors: Vectors of all sentences, float32, shape (n, hidden).
        anchors: Rows of the sentences that look for partners, int64, shape (a,).
        scratch: Folder for what was found, on a disk that all ranks see.

    Returns:
        Pairs of rows, int64, shape (a * k, 2), the anchor first and its nearest partner first. An approximate search
        that finds fewer gives fewer.

    Raises:
        InputError: The search would be approximate, and the package faiss is not installed.
    """
    k = max(0, min(k, len(vectors) - 1))
    check_faiss(len(vectors), len(anchors))
    if len(vectors) * len(anchors) <= exact_up_to():
        rows, _ = nearest(vectors, vectors[anchors], k + 1, scratch, progress)
    else:
        found = SharedArray(scratch / "rows.i64", (len(anchors), k + 1), "int64")
        on_main_process(lambda: _search(vectors, anchors, found, progress))
        rows = found.gather()
    pairs = pairs_with_anchors(anchors, without_anchors(np.asarray(rows), anchors))
    return pairs[pairs[:, 1] >= 0]  # faiss writes -1 where it found nothing


def without_anchors(rows: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Drop each anchor from the k + 1 rows that it found, or the last one where equal vectors left it out."""
    drop = rows == anchors[:, None]
    drop[~drop.any(axis=1), -1] = True
    kept: np.ndarray = rows[~drop].reshape(len(rows), rows.shape[1] - 1)
    return kept


def exact_up_to() -> int:
    """Cosines up to which all of them are computed; all ranks share the work."""
    is_slow = device_type() in ("cpu", "mps")
    return EXACT_UP_TO * (1 if is_slow else TIMES_ON_ACCELERATOR * process_state().num_processes)


def check_faiss(sentences: int, anchors: int) -> None:
    """Refuse a search among so many sentences that would be approximate, without the package faiss."""
    if sentences * anchors <= exact_up_to():
        return
    if sys.platform == "darwin":
        raise InputError(
            f"mining.sources: the neighbours of {anchors:,} among {sentences:,} sentences need the package faiss, "
            "which ends a process of macOS that has loaded torch; leave neighbours out, or mine on Linux"
        )
    try:
        import faiss  # noqa: F401
    except ImportError:
        raise InputError(
            f"mining.sources: the neighbours of {anchors:,} among {sentences:,} sentences need the package faiss; "
            "pip install 'te_trainer[mining]', or leave neighbours out"
        ) from None


def _search(vectors: np.ndarray, anchors: np.ndarray, found: SharedArray, progress: Progress) -> None:
    """Append all rows of `found`, shape (a, k + 1), from an inverted file: k-means lists of vectors in float16."""
    import faiss

    hidden, lists = vectors.shape[1], min(len(vectors), int(LISTS_PER_ROOT * len(vectors) ** 0.5))
    quantizer = faiss.IndexFlatIP(hidden)
    half = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(quantizer, hidden, lists, half, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = ITERATIONS
    # as many vectors as k-means wants, evenly spread, whatever the order of the sentences
    step = max(1, len(vectors) // (lists * SAMPLE_PER_LIST))
    index.train(_normalize(vectors[::step]))
    for start in range(0, len(vectors), BLOCK):
        index.add(_normalize(vectors[start : start + BLOCK]))
        progress(0.5 * min(1.0, (start + BLOCK) / len(vectors)))
    index.nprobe = -(-lists // PROBED)
    for start in range(0, len(anchors), BLOCK):
        _, rows = index.search(_normalize(vectors[anchors[start : start + BLOCK]]), found.shape[1])
        found.append(rows)
        progress(0.5 + 0.5 * min(1.0, (start + BLOCK) / len(anchors)))


def _normalize(vectors: np.ndarray) -> np.ndarray:
    import faiss

    block = np.array(vectors, dtype=np.float32, order="C")
    faiss.normalize_L2(block)
    return block
