"""The nearest sentences of each sentence: exact, by cosine, on all ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from te_trainer.data.arrow_io import pair_blocks, write_arrow
from te_trainer.data.outputs import neighbour_blocks
from te_trainer.distributed import SharedArray, on_main_process, process_state, rows_of_rank
from te_trainer.labelling import Progress

# Queries and vectors of one matrix product: cosines of 64 MiB on a CPU and 1 GiB elsewhere, where every block of
# queries copies all vectors again
BLOCK_CPU, BLOCK = (1024, 16_384), (65_536, 4096)
MOST_FOUND = 2**24  # rows that the queries of a block find in all: some 0.6 GB while they are merged with others


def nearest(
    vectors: np.ndarray, queries: np.ndarray | None, top_k: int, scratch: Path, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `top_k` vectors of the highest cosine for each query; without queries, for each vector among the others.

    Args:
        vectors, queries: float32, shapes (n, hidden) and (q, hidden).
        scratch: Folder for the result, on a disk that all ranks see.

    Returns:
        Rows of `vectors`, int64, the nearest first, and their cosines, float32, both of shape (q, top_k), from mapped
        files.
    """
    state = process_state()
    searched_for = vectors if queries is None else queries
    rows = SharedArray(scratch / "rows.i64", (len(searched_for), top_k), "int64")
    cosines = SharedArray(scratch / "cosines.f32", (len(searched_for), top_k))
    rank = rows_of_rank(len(searched_for))
    step, width = BLOCK_CPU if state.device.type == "cpu" else BLOCK
    step = max(1, min(step, MOST_FOUND // top_k))
    for start in range(rank.start, rank.stop, step):
        stop = min(start + step, rank.stop)
        block = _normalize(searched_for[start:stop], state.device)
        best = torch.empty(len(block), 0, device=state.device)
        best_rows = torch.empty(len(block), 0, dtype=torch.int64, device=state.device)
        for first in range(0, len(vectors), width):
            product = block @ _normalize(vectors[first : first + width], state.device).T
            if queries is None:
                # the cosine of row j of the block with itself is in column start - first + j
                product.diagonal(start - first).fill_(-torch.inf)
            values, columns = product.topk(min(top_k, product.shape[1]), dim=1)
            values, columns = torch.cat([best, values], 1), torch.cat([best_rows, columns + first], 1)
            best, kept = values.topk(min(top_k, values.shape[1]), dim=1)
            best_rows = columns.gather(1, kept)
            progress((start - rank.start + len(block) * min(1.0, (first + width) / len(vectors))) / len(rank))
        rows.append(best_rows.cpu().numpy())
        cosines.append(best.cpu().numpy())
    return rows.gather(), cosines.gather()


def write_neighbour_pairs(queries: Dataset, sentences: Dataset, rows: np.ndarray, file: Path) -> Dataset:
    """Write each query with each of the sentences that `nearest` found for it, (q, top_k) `rows`, as pairs to score."""
    blocks = neighbour_blocks(queries, sentences, rows, rows)
    pairs = (pair for block in blocks for pair in zip(block["query"], block["sentence"].to_pylist(), strict=True))
    on_main_process(lambda: write_arrow(file, pair_blocks(pairs)))
    return Dataset.from_file(str(file))


def _normalize(vectors: np.ndarray, device: torch.device) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(vectors, device=device), dim=1)
