"""The nearest sentences of each sentence: exact, by cosine, on all ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor

from te_trainer.data.arrow_io import PAIR_SCHEMA, write_arrow
from te_trainer.data.outputs import neighbour_blocks
from te_trainer.distributed import process_state
from te_trainer.labelling import Progress, score_pairs
from te_trainer.models import CrossEncoder
from te_trainer.models.precision import Precision
from te_trainer.shared_array import SharedArray, share_of_rank

QUERIES, VECTORS = 1024, 16_384  # rows of the two sides of one matrix product; its cosines take 64 MiB


def nearest(
    vectors: np.ndarray, queries: np.ndarray | None, top_k: int, scratch: Path, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `top_k` vectors of the highest cosine.

    Args:
        vectors: float32, shape (n, hidden).
        queries: float32, shape (q, hidden); None for the vectors themselves, each of which then has the others only.
        top_k: at most n, or n - 1 without queries.
        scratch: a folder for the result, on a disk that all ranks see.
        progress: called with the share done, 0 to 1.

    Returns:
        rows: int64, shape (q, top_k), rows of `vectors`, the nearest first.
        cosines: float32, shape (q, top_k). Both are mapped, so that they do not live in memory.
    """
    state = process_state()
    asked = vectors if queries is None else queries
    rows = SharedArray(scratch / "rows.i64", (len(asked), top_k), state, "int64").array
    cosines = SharedArray(scratch / "cosines.f32", (len(asked), top_k), state).array
    begin, end = share_of_rank(len(asked), state)
    for start in range(begin, end, QUERIES):
        stop = min(start + QUERIES, end)
        block = _unit(asked[start:stop], state.device)
        best = torch.empty(len(block), 0, device=state.device)
        best_rows = torch.empty(len(block), 0, dtype=torch.int64, device=state.device)
        for first in range(0, len(vectors), VECTORS):
            found = block @ _unit(vectors[first : first + VECTORS], state.device).T
            if queries is None:
                _leave_out_self(found, start - first)
            best, best_rows = _merge(best, best_rows, found, first, top_k)
            progress((start - begin + len(block) * min(1.0, (first + VECTORS) / len(vectors))) / (end - begin))
        rows[start:stop], cosines[start:stop] = best_rows.cpu().numpy(), best.cpu().numpy()
    state.wait_for_everyone()
    return rows, cosines


def score_found(
    encoder: CrossEncoder,
    queries: Dataset,
    sentences: Dataset,
    rows: np.ndarray,
    scratch: Path,
    progress: Progress,
    *,
    precision: Precision = "float32",
    batch_tokens: int | None = None,
) -> np.ndarray:
    """A cross-encoder's scores of each query with what `nearest` found for it.

    Args:
        queries, sentences: column `sentence1`.
        rows: int64, shape (q, top_k), rows of `sentences`.
        scratch: a folder for pairs and scores, on a disk that all ranks see.
        precision, batch_tokens, progress: as for `score_pairs`.

    Returns:
        float32, shape (q, top_k).
    """
    state = process_state()
    file = scratch / "found.arrow"
    if state.is_main_process:
        blocks = neighbour_blocks(queries, sentences, rows, rows)
        write_arrow(
            file, (pa.record_batch([block["query"], block["sentence"]], schema=PAIR_SCHEMA) for block in blocks)
        )
    state.wait_for_everyone()
    scores = score_pairs(
        encoder,
        Dataset.from_file(str(file)),
        precision=precision,
        batch_tokens=batch_tokens,
        scratch=scratch,
        progress=progress,
    )
    return scores.reshape(rows.shape)


def _unit(vectors: np.ndarray, device: torch.device) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(vectors, device=device), dim=1)


def _leave_out_self(found: Tensor, offset: int) -> None:
    """Column `offset + j` of row j is the cosine of a sentence with itself."""
    own = torch.arange(len(found), device=found.device)
    inside = (own + offset >= 0) & (own + offset < found.shape[1])
    found[own[inside], own[inside] + offset] = -torch.inf


def _merge(best: Tensor, best_rows: Tensor, found: Tensor, first: int, top_k: int) -> tuple[Tensor, Tensor]:
    values, columns = found.topk(min(top_k, found.shape[1]), dim=1)
    values, columns = torch.cat([best, values], 1), torch.cat([best_rows, columns + first], 1)
    kept, places = values.topk(min(top_k, values.shape[1]), dim=1)
    return kept, columns.gather(1, places)
