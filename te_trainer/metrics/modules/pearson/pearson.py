"""Pearson's correlation as an `evaluate.Metric`, computed in float64.

`evaluate.load` copies this file elsewhere and reads its imports by line, so that each stands on a line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from te_trainer.metrics import pearson


class Pearson(evaluate.Metric):
    """`{"pearson": f}`, a fraction."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Pearson's correlation of scores with gold scores, in float64.",
            citation="",
            inputs_description="predictions: scores of n pairs; references: their gold scores.",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        return {"pearson": pearson(np.asarray(predictions), np.asarray(references))}
