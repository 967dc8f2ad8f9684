"""Pseudo-labels: score every pair of a pool with an encoder, on all ranks.

Sentences and pairs go through in windows, sorted by length within each, in batches of a token budget; so nearly every
token that is computed is a real one, and neither memory nor cost per pair grows with the pool.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor

from te_trainer.data.digests import text_digest
from te_trainer.distributed import process_state
from te_trainer.errors import DivergedError, InputError
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.collation import pad
from te_trainer.models.packed import AttentionBackend, choose_backend, use_backend
from te_trainer.models.precision import Precision, autocast
from te_trainer.models.tokenization import Columns, tokenise
from te_trainer.shared_array import SharedArray, share_of_rank

WINDOW = 16_384  # sentences or pairs that are tokenised and sorted together

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
        batch_tokens: tokens in a batch, what is computed of padding included. Default: 4096 on a CPU, 32768 elsewhere.
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
    budget = batch_tokens or _default_budget(device)
    encoder.model.to(device).eval()
    scores = SharedArray(scratch and scratch / "scores.f32", (total,), state)
    with torch.inference_mode(), autocast(device, precision), _fast(encoder, device) as backend:
        if isinstance(encoder, BiEncoder):
            _score_bi(encoder, backend, pairs, scores, budget, scratch, state, progress or _silent)
        else:
            _score_cross(encoder, backend, pairs, scores, budget, state, progress or _silent)
    state.wait_for_everyone()
    result = np.array(scores.array)
    if not np.isfinite(result).all():
        worst = int(np.flatnonzero(~np.isfinite(result))[0])
        raise DivergedError(f"the {encoder.kind}'s score of pair {worst + 1} is {result[worst]}; its weights diverged")
    return result


def embed_sentences(
    encoder: BiEncoder,
    sentences: Dataset,
    scratch: Path,
    *,
    precision: Precision = "float32",
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Vectors of sentences, on all ranks.

    Args:
        sentences: column `sentence1`.
        scratch: a folder for the vectors, on a disk that all ranks see.
        precision, batch_tokens, progress: as for `score_pairs`.

    Returns:
        float32, shape (n, hidden), not normalised; mapped, so that it does not live in memory.

    Raises:
        DivergedError: a vector holds NaN or infinity.
    """
    state = process_state()
    encoder.model.to(state.device).eval()
    vectors = SharedArray(scratch / "vectors.f32", (len(sentences), encoder.model.config.hidden_size), state)
    with torch.inference_mode(), autocast(state.device, precision), _fast(encoder, state.device) as backend:
        _embed(
            encoder,
            backend,
            lambda start, stop: sentences[start:stop]["sentence1"],
            vectors,
            batch_tokens or _default_budget(state.device),
            state,
            progress or _silent,
        )
    for start in range(0, len(vectors.array), WINDOW):
        if not np.isfinite(vectors.array[start : start + WINDOW]).all():
            raise DivergedError("a vector of the bi-encoder is NaN or infinite; its weights diverged")
    return vectors.array


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
            digests[2 * start + side : 2 * stop : 2] = [text_digest(text) for text in block[name]]
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return number[inverse].reshape(total, 2), first[order]


def _score_bi(
    encoder: BiEncoder,
    backend: AttentionBackend,
    pairs: Pairs,
    scores: SharedArray,
    budget: int,
    scratch: Path | None,
    state: PartialState,
    progress: Progress,
) -> None:
    ids, first = distinct_sentences(pairs)
    vectors = SharedArray(scratch and scratch / "vectors.f32", (len(first), encoder.model.config.hidden_size), state)
    _embed(encoder, backend, lambda start, stop: _sentences(pairs, first[start:stop]), vectors, budget, state, progress)
    begin, end = share_of_rank(len(ids), state)
    for start in range(begin, end, WINDOW):
        stop = min(start + WINDOW, end)
        one, two = (vectors.array[ids[start:stop, side]].astype(np.float32) for side in (0, 1))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        scores.array[start:stop] = np.einsum("ij,ij->i", one, two) / np.maximum(norms, 1e-12)


def _embed(
    encoder: BiEncoder,
    backend: AttentionBackend,
    sentences: Callable[[int, int], list[str]],
    vectors: SharedArray,
    budget: int,
    state: PartialState,
    progress: Progress,
) -> None:
    """Fill `vectors`, and wait for all ranks to do so; `sentences` gives those from one number to another."""
    begin, end = share_of_rank(len(vectors.array), state)
    for start in range(begin, end, WINDOW):
        stop = min(start + WINDOW, end)
        texts = [encoder.prompt + text for text in sentences(start, stop)]
        encoded = tokenise(encoder.tokenizer, encoder.max_length, texts)
        done = 0
        for batch in _batches(backend, encoded["input_ids"], budget):
            inputs = _padded(encoder, {"input_ids": encoded["input_ids"]}, batch, state.device)
            vectors.array[start + batch] = encoder.embed(inputs["input_ids"], inputs["attention_mask"]).cpu().numpy()
            done += len(batch)
            progress((start - begin + done) / (end - begin))
        # else the next window would lie beside this one
        del texts, encoded
    state.wait_for_everyone()


def _score_cross(
    encoder: CrossEncoder,
    backend: AttentionBackend,
    pairs: Pairs,
    scores: SharedArray,
    budget: int,
    state: PartialState,
    progress: Progress,
) -> None:
    begin, end = share_of_rank(len(scores.array), state)
    for start, block in _blocks(pairs, begin, end):
        encoded = tokenise(encoder.tokenizer, encoder.max_length, block["sentence1"], block["sentence2"])
        done = 0
        for batch in _batches(backend, encoded["input_ids"], budget):
            inputs = _padded(encoder, encoded, batch, state.device)
            scores.array[start + batch] = encoder.scores(**inputs).cpu().numpy()
            done += len(batch)
            progress((start - begin + done) / (end - begin))
        del block, encoded


def _padded(encoder: Encoder, encoded: Columns, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    batch = pad(encoder.tokenizer, {name: [column[row] for row in rows] for name, column in encoded.items()})
    return {name: values.to(device) for name, values in batch.items()}


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


def _default_budget(device: torch.device) -> int:
    return 4096 if device.type == "cpu" else 32768


def _fast(encoder: Encoder, device: torch.device) -> contextlib.AbstractContextManager[AttentionBackend]:
    return use_backend(encoder.model, choose_backend(encoder.model, encoder.max_length, device))


def _batches(backend: AttentionBackend, input_ids: list[list[int]], max_tokens: int) -> Iterator[np.ndarray]:
    return backend.batches(np.fromiter(map(len, input_ids), dtype=np.int64, count=len(input_ids)), max_tokens)


def _silent(share: float) -> None:
    pass
