"""What another library says of the encoders that a run keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sentence_transformers import CrossEncoder, SentenceTransformer


def their_scores(encoder: Path, one: list[str], two: list[str]) -> np.ndarray:
    """Scores of pairs by sentence-transformers; the folder is named after the kind of its encoder."""
    if encoder.name == "cross-encoder":
        return np.asarray(CrossEncoder(str(encoder), device="cpu").predict(list(zip(one, two, strict=True))))
    loaded = SentenceTransformer(str(encoder), device="cpu")
    return loaded.similarity_pairwise(loaded.encode(one), loaded.encode(two)).numpy()
