"""Scores of an encoder against gold: always float32, whatever precision it was trained in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from te_trainer.data import GoldSet, GoldSets
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import Progress, score_pairs
from te_trainer.metrics import Metric
from te_trainer.models import Encoder


@dataclass
class Scorer:
    """Scores encoders on the sets of a run."""

    gold: GoldSets
    metric: Metric
    batch_tokens: int | None
    scratch: Path  # a folder to be made while an encoder predicts, on a disk that all ranks see

    def score(self, encoder: Encoder) -> tuple[dict[str, Any], list[np.ndarray]]:
        """`{"scores": SCORES, "seconds": s}`, and the predictions for dev and each test set, each of shape (n,)."""
        began = time.monotonic()
        predictions = predict(encoder, [gold for _, gold in self.gold], self.batch_tokens, self.scratch)
        return {"scores": self.scores(predictions), "seconds": round(time.monotonic() - began, 3)}, predictions

    def scores(self, predictions: Sequence[np.ndarray]) -> dict[str, Any]:
        """`{"dev": f, "test": {name: f, ..., "avg": f}}` as fractions; absent where there is no gold."""
        scores: dict[str, Any] = {}
        for prediction, (role, gold) in zip(predictions, self.gold, strict=True):
            score = self.metric(prediction, gold.scores)
            if role == "dev":
                scores["dev"] = score
            else:
                scores.setdefault("test", {})[gold.name] = score
        if "test" in scores:
            scores["test"]["avg"] = float(np.mean(list(scores["test"].values())))
        return scores


def predict(
    encoder: Encoder,
    sets: Sequence[GoldSet],
    batch_tokens: int | None,
    scratch: Path,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Scores of each set, float32, shape (n,); pairs and sentences that sets share go through the encoder once."""
    pairs = [pair for gold in sets for pair in gold.pairs]
    if not pairs:
        return []
    index = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    columns = {"sentence1": [one for one, _ in index], "sentence2": [two for _, two in index]}
    with scratch_folder(scratch) as folder:
        scores = score_pairs(encoder, columns, batch_tokens=batch_tokens, scratch=folder, progress=progress)
    return np.split(scores[[index[pair] for pair in pairs]], np.cumsum([len(gold) for gold in sets])[:-1])


def describe(scores: dict[str, Any]) -> str:
    """Scores in one line, times 100."""
    parts = [f"dev {100 * scores['dev']:.2f}"] if "dev" in scores else []
    parts += [f"test {100 * scores['test']['avg']:.2f}"] if "test" in scores else []
    return ", ".join(parts)
