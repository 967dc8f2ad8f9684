"""Pseudo-labels: score every pair of a pool with an encoder, on all ranks.

Sentences and pairs go through in windows, sorted by length within each, in batches of a token budget; so nearly every
token that is computed is a real one, and neither memory nor cost per pair grows with the pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from te_trainer.encoders import BiEncoder, CrossEncoder, Encoder
from te_trainer.encoders.precision import Precision, autocast
from te_trainer.encoders.tokens import tokenise
from te_trainer.errors import DivergedError, InputError
from te_trainer.pairs.pool import pair_digest
from te_trainer.processes import process_state

WINDOW = 16_384  # sentences or pairs that are tokenised and sorted together

PADDING = 0.05  # share of a batch that may be padding

Pairs: TypeAlias = Dataset | Mapping[str, Sequence[str]]
Progress = Callable[[float], None]


def score_pairs(
    encoder: Encoder,
    pairs: Pairs,
    *,
    precision: Precision = "float32",
    batch_tokens: int | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Score pairs: the bi-encoder's cosine, or the sigmoid of the cross-encoder's logit.

    Each distinct sentence goes through a bi-encoder once. On several ranks each scores its share, and every rank gets
    all scores; `scratch` must then lie on a disk that all of them see.

    Args:
        pairs: columns `sentence1` and `sentence2`.
        precision: arithmetic of the encoder; what follows it (pooling, cosine, head, sigmoid) is float32.
        batch_tokens: tokens in a batch, padding included. Default: 4096 on a CPU, 32768 elsewhere.
        scratch: an empty folder for vectors and scores that should not live in memory; needed on several ranks.
        progress: called with the share done, 0 to 1.

    Returns:
        float32, shape (n,), in the order of `pairs`: cosines in [-1, 1], sigmoids in [0, 1]; raw
        logits where the cross-encoder's activation is `identity`.

    Raises:
        DivergedError: a score is NaN or infinite.
    """
    state = process_state()
    if state.num_processes > 1 and scratch is None:
        raise InputError("score_pairs: on several ranks, give a scratch folder that all of them see")
    total = len(pairs["sentence1"])
    device = state.device
    budget = batch_tokens or (4096 if device.type == "cpu" else 32768)
    encoder.model.to(device).eval()
    scores = _Shared(scratch and scratch / "scores.f32", (total,), state)
    with torch.inference_mode(), autocast(device, precision):
        if isinstance(encoder, BiEncoder):
            _score_bi(encoder, pairs, scores, budget, scratch, state, progress or _silent)
        else:
            _score_cross(encoder, pairs, scores, budget, state, progress or _silent)
    state.wait_for_everyone()
    result = np.array(scores.array)
    if not np.isfinite(result).all():
        worst = int(np.flatnonzero(~np.isfinite(result))[0])
        raise DivergedError(f"the {encoder.kind}'s score of pair {worst + 1} is {result[worst]}; its weights diverged")
    return result


def token_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Positions in batches of similar length, the longest first.

    A batch ends when it is full, or when padding would pass its share: among few items of many lengths, small batches
    cost less than the padding of large ones.

    Args:
        lengths: tokens of each item, shape (n,).
        budget: items times the longest of them stays within this, but a batch holds at least one item.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    start = 0
    while start < len(order):
        longest = int(ordered[start])
        real = np.cumsum(ordered[start : start + max(1, budget // longest)])
        # the share of real tokens only falls with every item, so those that keep it come first
        size = int((real >= (1 - PADDING) * longest * np.arange(1, len(real) + 1)).sum())
        yield order[start : start + size]
        start += size


def distinct_sentences(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct sentences of a pool in the order in which they first occur.

    Returns:
        ids: shape (n, 2), the number of each pair's sentences.
        first: shape (m,), where sentence number j first occurs: `2 * row + side`.
    """
    total = len(pairs["sentence1"])
    digests = np.empty(2 * total, dtype=np.uint64)
    for start, block in _blocks(pairs, 0, total):
        for side, name in enumerate(("sentence1", "sentence2")):
            stop = start + len(block[name])
            digests[2 * start + side : 2 * stop : 2] = [pair_digest(text) for text in block[name]]
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return number[inverse].reshape(total, 2), first[order]


class _Shared:
    """A float32 array in memory, or in a file that every rank writes its share of."""

    def __init__(self, path: Path | None, shape: tuple[int, ...], state: PartialState) -> None:
        if path is None:
            self.array: np.ndarray = np.empty(shape, dtype=np.float32)
            return
        if state.is_main_process:
            with path.open("wb") as file:
                # A mapped file that finds the disk full while it is written to kills the process; find out before.
                _allocate(file.fileno(), 4 * int(np.prod(shape)))
        state.wait_for_everyone()
        self.array = np.memmap(path, dtype=np.float32, mode="r+", shape=shape)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _score_bi(
    encoder: BiEncoder,
    pairs: Pairs,
    scores: _Shared,
    budget: int,
    scratch: Path | None,
    state: PartialState,
    progress: Progress,
) -> None:
    ids, first = distinct_sentences(pairs)
    vectors = _Shared(scratch and scratch / "vectors.f32", (len(first), encoder.model.config.hidden_size), state)
    begin, end = _share(len(first), state)
    for start in range(begin, end, WINDOW):
        stop = min(start + WINDOW, end)
        texts = [encoder.prompt + text for text in _sentences(pairs, first[start:stop])]
        encoded = tokenise(encoder.tokenizer, encoder.max_length, texts)
        done = 0
        for batch in token_batches(_lengths(encoded["input_ids"]), budget):
            inputs = pad(encoder.tokenizer, {"input_ids": encoded["input_ids"]}, batch).to(state.device)
            vectors.array[start + batch] = encoder.embed(inputs["input_ids"], inputs["attention_mask"]).cpu().numpy()
            done += len(batch)
            progress((start - begin + done) / (end - begin))
    state.wait_for_everyone()
    begin, end = _share(len(ids), state)
    for start in range(begin, end, WINDOW):
        stop = min(start + WINDOW, end)
        one, two = (vectors.array[ids[start:stop, side]].astype(np.float32) for side in (0, 1))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        scores.array[start:stop] = np.einsum("ij,ij->i", one, two) / np.maximum(norms, 1e-12)


def _score_cross(
    encoder: CrossEncoder, pairs: Pairs, scores: _Shared, budget: int, state: PartialState, progress: Progress
) -> None:
    begin, end = _share(len(scores.array), state)
    for start, block in _blocks(pairs, begin, end):
        encoded = tokenise(encoder.tokenizer, encoder.max_length, block["sentence1"], block["sentence2"])
        done = 0
        for batch in token_batches(_lengths(encoded["input_ids"]), budget):
            inputs = pad(encoder.tokenizer, encoded, batch).to(state.device)
            scores.array[start + batch] = encoder.scores(**inputs).cpu().numpy()
            done += len(batch)
            progress((start - begin + done) / (end - begin))


def pad(tokenizer: PreTrainedTokenizerBase, encoded: Mapping[str, Any], rows: np.ndarray) -> Any:
    """A padded batch of the given rows of what a tokenizer gave."""
    return tokenizer.pad({name: [column[row] for row in rows] for name, column in encoded.items()}, return_tensors="pt")


def _share(total: int, state: PartialState) -> tuple[int, int]:
    return (
        total * state.process_index // state.num_processes,
        total * (state.process_index + 1) // state.num_processes,
    )


def _blocks(pairs: Pairs, begin: int, end: int) -> Iterator[tuple[int, Mapping[str, list[str]]]]:
    for start in range(begin, end, WINDOW):
        stop = min(start + WINDOW, end)
        if isinstance(pairs, Dataset):
            yield start, pairs[start:stop]
        else:
            yield start, {name: list(pairs[name][start:stop]) for name in ("sentence1", "sentence2")}


def _sentences(pairs: Pairs, places: np.ndarray) -> list[str]:
    """Sentences at `2 * row + side`; the places ascend, so that the rows are read in one sweep."""
    rows, position = np.unique(places // 2, return_inverse=True)
    if isinstance(pairs, Dataset):
        block: Mapping[str, Sequence[str]] = pairs[rows.tolist()]
    else:
        block = {name: [pairs[name][row] for row in rows] for name in ("sentence1", "sentence2")}
    sides = (block["sentence1"], block["sentence2"])
    return [sides[place % 2][at] for place, at in zip(places.tolist(), position.tolist(), strict=True)]


def _lengths(input_ids: list[list[int]]) -> np.ndarray:
    return np.fromiter((len(ids) for ids in input_ids), dtype=np.int64, count=len(input_ids))


def _silent(share: float) -> None:
    pass
