"""Scores of an encoder against gold: always float32, whatever precision it was trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from te_trainer.data import GoldSet
from te_trainer.files.atomic import atomic_file
from te_trainer.files.records import damage_as_input_error
from te_trainer.labelling import Progress, score_pairs
from te_trainer.metrics import Metric
from te_trainer.models import Encoder
from te_trainer.runs.folder import scratch_folder


@dataclass
class Scorer:
    """Scores encoders on a dev set and on test sets.

    Args:
        dev: chooses checkpoints and cycles; may be None.
        tests: are only reported on; may be empty.
        metric: the task's.
        batch_tokens: as for `score_pairs`.
        scratch: a place for a folder that all ranks see.
    """

    dev: GoldSet | None
    tests: list[GoldSet]
    metric: Metric
    batch_tokens: int | None
    scratch: Path

    def predict(self, encoder: Encoder) -> list[np.ndarray]:
        """Predictions for dev (if there is one) and for each test set, each of shape (n,)."""
        return predict(encoder, self._sets(), self.batch_tokens, self.scratch)

    def scores(self, predictions: Sequence[np.ndarray]) -> dict[str, Any]:
        """`{"dev": f, "test": {name: f, ..., "avg": f}}` as fractions; absent where there is no gold."""
        found = {
            gold.name if gold is not self.dev else None: self.metric(prediction, gold.scores)
            for gold, prediction in zip(self._sets(), predictions, strict=True)
        }
        scores: dict[str, Any] = {}
        if self.dev is not None:
            scores["dev"] = found.pop(None)
        if found:
            scores["test"] = {**found, "avg": float(np.mean(list(found.values())))}
        return scores

    def _sets(self) -> list[GoldSet]:
        return ([self.dev] if self.dev is not None else []) + self.tests


def predict(
    encoder: Encoder,
    sets: Sequence[GoldSet],
    batch_tokens: int | None,
    scratch: Path,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """An encoder's scores of several sets; what they share, pairs or sentences, goes through it once.

    Args:
        scratch: a place for a folder that all ranks see.
        progress: called with the share done.

    Returns:
        for each set, float32, shape (n,).
    """
    pairs = [pair for gold in sets for pair in zip(gold.sentence1, gold.sentence2, strict=True)]
    if not pairs:
        return []
    place = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    columns = {"sentence1": [one for one, _ in place], "sentence2": [two for _, two in place]}
    with scratch_folder(scratch) as folder:
        scores = score_pairs(encoder, columns, batch_tokens=batch_tokens, scratch=folder, progress=progress)
    everything = scores[[place[pair] for pair in pairs]]
    return np.split(everything, np.cumsum([len(gold) for gold in sets])[:-1])


def save_predictions(path: Path, predictions: Sequence[np.ndarray]) -> None:
    """Write predictions for several sets in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        np.savez(partial, *predictions)


def load_predictions(path: Path) -> list[np.ndarray]:
    """Read back what `save_predictions` wrote, in its order."""
    then = "the run's command scores the encoder again"
    with damage_as_input_error(path, then=then), np.load(path) as saved:
        return [saved[f"arr_{number}"] for number in range(len(saved))]


def describe(scores: dict[str, Any]) -> str:
    """Scores in a few words, times 100."""
    parts = [f"dev {100 * scores['dev']:.2f}"] if "dev" in scores else []
    parts += [f"test {100 * scores['test']['avg']:.2f}"] if "test" in scores else []
    return ", ".join(parts)
