"""Average precision as an `evaluate.Metric`, computed in float64.

`evaluate.load` copies this file elsewhere and reads its imports by line, so that each stands on a line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from te_trainer.metrics import average_precision


class AveragePrecision(evaluate.Metric):
    """`{"average_precision": f}`, a fraction."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Average precision of scores of pairs, in float64.",
            citation="",
            inputs_description="predictions: scores of n pairs; references: 1 for positive pairs, 0 for negative ones.",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        return {"average_precision": average_precision(np.asarray(predictions), np.asarray(references))}
