"""What the modules of the library evaluate share: each makes its class from a metric's name."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from te_trainer import metrics


def make_metric(name: str) -> type[evaluate.Metric]:
    """Make an `evaluate.Metric` that gives `{name: fraction}`, computed in float64, of a function of
    `te_trainer.metrics`.
    """
    function: metrics.Metric = getattr(metrics, name)

    class PairMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
        def _info(self) -> evaluate.MetricInfo:
            value = datasets.Value("float64")
            return evaluate.MetricInfo(
                description=f"{metrics.METRIC_TITLES[name]} of scores of pairs, in float64.",
                citation="",
                inputs_description="predictions: scores of n pairs; references: their gold scores, or 0 and 1.",
                features=datasets.Features({"predictions": value, "references": value}),
            )

        def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
            return {name: function(np.asarray(predictions), np.asarray(references))}

    return PairMetric
