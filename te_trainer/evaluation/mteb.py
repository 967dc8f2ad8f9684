"""Bi-encoders, cross-encoders alike, as a model that MTEB 2 scores on tasks of semantic textual similarity (STS).

    import mteb
    from te_trainer.evaluation.mteb import PairScorer

    mteb.evaluate(PairScorer("runs/tickets/bert/cross-encoder"), mteb.get_tasks(tasks=["STSBenchmark", "SICK-R"]))

MTEB asks a model for the vectors of first and of second sentences, which a cross-encoder does not have: MTEB itself
refuses cross-encoders on these tasks (its issue 1725).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mteb.models import ModelMeta

from te_trainer.config.names import is_folder, split_revision
from te_trainer.config.types import Pooling
from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import load_encoder, resolve_checkpoint


class PairScorer:
    """Scores of pairs, computed as `te-trainer evaluate` computes them, in the form that MTEB asks for.

    The vectors that MTEB gets are points on the unit circle: (1, 0) for a first sentence, (s, sqrt(1 - s^2)) for the
    second of a pair with the score s. Their cosine is s, and MTEB's other distances put pairs into the same order.
    Scores beyond [-1, 1], of cross-encoders without a sigmoid, are divided by the largest; no correlation changes.

    Args:
        model: A bi-encoder or a cross-encoder: a local folder, a Hub id (owner/name[@revision]), or package:folder.
        pooling: How a bi-encoder's token vectors become one. Default: the checkpoint's.
        max_length: Tokens beyond this are cut. Default: the checkpoint's.

    Raises:
        InputError: The checkpoint cannot be used, or a task is not one of STS.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, pooling: Pooling | None = None, max_length: int | None = None
    ) -> None:
        name = os.fspath(model)
        checkpoint = resolve_checkpoint(name)
        self.encoder = load_encoder(checkpoint, pooling=pooling, max_length=max_length)
        # MTEB keeps results by name, revision and these arguments, and would give a retrained model the old scores.
        given = {"pooling": pooling, "max_length": max_length}
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": _mteb_name(name),
                "revision": checkpoint.fingerprint.replace(" ", "-"),
                "experiment_kwargs": {key: value for key, value in given.items() if value is not None} or None,
            }
        )
        self._first: tuple[tuple[str, str, str], list[str]] | None = None

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, task_metadata: Any, hf_split: str, hf_subset: str, **_: Any
    ) -> np.ndarray:
        """Points for the first sentences of pairs, and in the next call for the second ones; float64, shape (n, 2)."""
        if task_metadata.type != "STS":
            raise InputError(
                f"{task_metadata.name}: a task of the type {task_metadata.type}, and a PairScorer scores pairs of STS "
                "tasks alone; give MTEB a bi-encoder as SentenceTransformer(folder)"
            )
        texts = [text for batch in inputs for text in batch["text"]]
        part = (task_metadata.name, hf_split, hf_subset)
        first, self._first = self._first, None
        if first is None or first[0] != part:
            self._first = (part, texts)
            return np.tile([1.0, 0.0], (len(texts), 1))
        scores = score_pairs(self.encoder, {"sentence1": first[1], "sentence2": texts}).astype(np.float64)
        scores /= max(1.0, float(np.abs(scores).max()))
        return np.stack([scores, np.sqrt(1 - scores**2)], axis=1)

    def similarity_pairwise(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """The scores of pairs, shape (n,)."""
        return np.asarray((embeddings1 * embeddings2).sum(axis=1))

    def similarity(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """Refused: a second sentence has a score with its own first one alone."""
        raise InputError("PairScorer: it scores pairs; give MTEB a bi-encoder as SentenceTransformer(folder)")


def _mteb_name(model: str) -> str:
    """OWNER/NAME, as MTEB has names."""
    if is_folder(model):
        return f"local/{'-'.join(Path(model).absolute().parts[-2:])}"
    return split_revision(model)[0].replace(":", "/")
