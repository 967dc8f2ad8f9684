"""Pseudo-labels: score every pair of a pool with an encoder, on all ranks.

Memory holds texts, tokens and vectors of one window, texts and tokens of the next, and some 100 bytes a pair: its score
and its sentences' numbers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from te_trainer.config.types import SENTENCE_COLUMNS, PrecisionChoice
from te_trainer.data.digests import text_digest
from te_trainer.data.given import as_pairs
from te_trainer.distributed import SharedArray, process_state, rows_of_rank
from te_trainer.errors import DivergedError, InputError
from te_trainer.models import BiEncoder, Encoder
from te_trainer.models.collation import pad
from te_trainer.models.packed import choose_backend, to_device, use_backend
from te_trainer.models.precision import autocast, resolve_precision
from te_trainer.models.tokenization import tokenise
from te_trainer.models.tokens import Tokens

WINDOW = 16_384  # sentences or pairs that are sorted together
PART = 1024  # of a window; as many are still tokenised when a labelling breaks off
SAME_SCORE = 1e-6  # difference of two scores that rounding alone explains
BATCH_TOKENS_CPU, BATCH_TOKENS = 4096, 32_768  # defaults on a CPU and elsewhere

Pairs: TypeAlias = Dataset | Mapping[str, Sequence[str]] | Sequence[Sequence[str]]
_COMPUTING = threading.RLock()
Progress = Callable[[float], None]


def score_pairs(
    encoder: Encoder,
    pairs: Pairs,
    *,
    precision: PrecisionChoice = "float32",
    batch_tokens: int | None = None,
    scratch: str | Path | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Score pairs: the bi-encoder's cosine, or the sigmoid of the cross-encoder's logit.

    Each distinct sentence goes through a bi-encoder once. On several ranks each scores some of the pairs, and every
    rank gets all scores.

    Args:
        pairs: Columns `sentence1` and `sentence2`, or a list of pairs `(sentence1, sentence2)` or of dicts with these
            keys.
        precision: Arithmetic of the encoder; what follows it (pooling, cosine, head, sigmoid) is float32. `auto` is
            what the hardware is fast at.
        batch_tokens: Tokens in a batch, computed padding included. Default: 4096 on a CPU, 32768 elsewhere.
        scratch: Empty folder for vectors and scores that should not live in memory. Several ranks need one, on a disk
            that all of them see.
        progress: Called with the fraction that is done, 0 to 1.

    Returns:
        Scores, float32, shape (n,), in the order of `pairs`: cosines in [-1, 1] up to rounding, sigmoids in [0, 1], or
        raw logits where the cross-encoder's activation is `identity`.

    Raises:
        InputError: These are no pairs of texts, or another argument cannot be used.
        DivergedError: A score is NaN or infinite.
    """
    state = process_state()
    if state.num_processes > 1 and scratch is None:
        raise InputError("score_pairs: on several ranks, give a scratch folder that all of them see")
    if not isinstance(encoder, Encoder):
        raise InputError(f"encoder: a {type(encoder).__name__} where a BiEncoder or a CrossEncoder is expected")
    pairs = as_pairs(pairs)
    scratch = None if scratch is None else Path(scratch)
    shared = SharedArray(scratch and scratch / "scores.f32", (len(pairs),))
    if isinstance(encoder, BiEncoder):
        ids, first = distinct_sentences(pairs)
        shared_vectors = SharedArray(scratch and scratch / "vectors.f32", (len(first), encoder.vector_size))

        def encode(start: int, stop: int) -> Tokens:
            return encoder.token_ids(sentences_at(pairs, first[start:stop]))

        _compute(encoder, encode, encoder.embed, shared_vectors, precision, batch_tokens, progress)
        rank = rows_of_rank(len(pairs))
        shared.append(cosines(shared_vectors.gather(), ids[rank.start : rank.stop]))
    else:

        def encode(start: int, stop: int) -> Tokens:
            block = pairs[start:stop]
            return tokenise(encoder.tokenizer, encoder.max_length, *(block[name] for name in SENTENCE_COLUMNS))

        _compute(encoder, encode, encoder.scores, shared, precision, batch_tokens, progress)
    scores = np.array(shared.gather())  # not a mapped file
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        score = scores[broken[0]]
        raise DivergedError(
            f"the {encoder.kind}'s score of pair {broken[0] + 1} is {score}; its weights are damaged, or diverged"
        )
    return scores


def embed_sentences(
    encoder: BiEncoder,
    sentences: Dataset,
    scratch: Path,
    *,
    precision: PrecisionChoice = "float32",
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Embed sentences on all ranks.

    Args:
        sentences: Column `sentence1`.
        scratch: Folder for the vectors, on a disk that all ranks see.
        precision, batch_tokens, progress: As for `score_pairs`.

    Returns:
        Vectors, float32, shape (n, hidden), not normalised, mapped from a file into memory and read-only.

    Raises:
        DivergedError: A vector holds NaN or infinity.
    """
    shared = SharedArray(scratch / "vectors.f32", (len(sentences), encoder.vector_size))

    def encode(start: int, stop: int) -> Tokens:
        return encoder.token_ids(sentences[start:stop]["sentence1"])

    _compute(encoder, encode, encoder.embed, shared, precision, batch_tokens, progress)
    vectors = shared.gather()
    for start in range(0, len(vectors), WINDOW):
        if not np.isfinite(vectors[start : start + WINDOW]).all():
            raise DivergedError("a vector of the bi-encoder is NaN or infinite; its weights are damaged, or diverged")
    return vectors


def cosines(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosines of pairs of vectors (float32, shape (n, hidden)) with these rows, shape (m, 2): float32, shape (m,)."""
    scores = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), WINDOW):
        one, two = (vectors[rows[start : start + WINDOW, side]] for side in (0, 1))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        scores[start : start + WINDOW] = np.einsum("ij,ij->i", one, two) / np.maximum(norms, 1e-12)
    return scores


def distinct_sentences(pairs: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct sentences of a pool in the order in which they first occur.

    Returns:
        Numbers of each pair's sentences, shape (n, 2), and where each first occurs, as `2 * row + side`, shape (m,).
    """
    digests = np.empty((len(pairs), 2), dtype=np.uint64)
    for start in range(0, len(pairs), WINDOW):
        block = pairs[start : start + WINDOW]
        for side, name in enumerate(SENTENCE_COLUMNS):
            digests[start : start + WINDOW, side] = [text_digest(text) for text in block[name]]
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return number[inverse].reshape(-1, 2), first[order]


def sentences_at(pairs: Dataset, positions: np.ndarray) -> list[str]:
    """Sentences of a pool at ascending positions `2 * row + side`; one sweep reads their rows."""
    rows, index = np.unique(positions // 2, return_inverse=True)
    block = pairs[rows.tolist()]
    sides = [block[name] for name in SENTENCE_COLUMNS]
    return [sides[position % 2][row] for position, row in zip(positions.tolist(), index.tolist(), strict=True)]


def _compute(
    encoder: Encoder,
    encode: Callable[[int, int], Tokens],
    forward: Callable[..., Tensor],
    output: SharedArray,
    precision: PrecisionChoice,
    batch_tokens: int | None,
    progress: Progress | None,
) -> None:
    """Append this rank's rows to an array that all ranks share.

    `encode` gives the tokens of the rows from one to another; `forward` computes vectors or scores of a batch of them.
    """
    precision = resolve_precision(precision)
    if batch_tokens is not None and batch_tokens < 1:
        raise InputError(f"batch_tokens: {batch_tokens} tokens make no batch; give 1 or more")
    device = process_state().device
    budget = batch_tokens or (BATCH_TOKENS_CPU if device.type == "cpu" else BATCH_TOKENS)
    rank = rows_of_rank(output.shape[0])
    named = encoder.attn_implementation
    backend = choose_backend(encoder.model, encoder.max_length, device, precision, attention=named)
    with (
        # a model's attention is replaced meanwhile, for all threads
        _COMPUTING,
        _evaluated(encoder.model.to(device)),
        torch.inference_mode(),
        autocast(device, precision),
        use_backend(encoder.model, backend),
        contextlib.closing(_tokenised(encode, rank)) as windows,
    ):
        for start, tokens in windows:
            results = torch.empty((len(tokens), *output.shape[1:]), dtype=torch.float32, device=device)
            order: list[np.ndarray] = []
            done = 0
            for rows in backend.batches(tokens.lengths, budget):
                batch = pad(encoder.tokenizer, tokens.take(rows))
                results[done : done + len(rows)] = forward(**to_device(batch, device))
                order.append(rows)
                done += len(rows)
                if progress is not None:
                    progress((start - rank.start + done) / len(rank))
            # a GPU is waited for here alone
            output.append(results.cpu().numpy()[np.argsort(np.concatenate(order))])
            del tokens, results  # or they would lie in memory beside those of the next window


@contextlib.contextmanager
def _evaluated(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout; afterwards the model trains again, if it did."""
    trains = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(trains)


def _tokenised(encode: Callable[[int, int], Tokens], rows: range) -> Generator[tuple[int, Tokens]]:
    """Where each window starts, and its tokens.

    A thread tokenises the next window while the caller computes this one; the caller gets its errors. It ends with the
    iterator.
    """
    thread = ThreadPoolExecutor(1, "tokenise")

    def begin(start: int) -> list[Future[Tokens]]:
        stop = min(start + WINDOW, rows.stop)
        return [thread.submit(encode, first, min(first + PART, stop)) for first in range(start, stop, PART)]

    try:
        parts = begin(rows.start)
        for start in range(rows.start, rows.stop, WINDOW):
            tokens = Tokens.concatenate([part.result() for part in parts])
            parts = begin(start + WINDOW)
            yield start, tokens
            del tokens  # or a third window would lie in memory
    finally:
        thread.shutdown(cancel_futures=True)
