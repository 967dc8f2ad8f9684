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
            scores, gold = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
            if len(gold) < 2:
                raise ValueError(f"{name}: {len(gold)} pairs cannot be ranked; give two or more")
            for values, role in ((scores, "predictions"), (gold, "references")):
                if not np.isfinite(values).all():
                    raise ValueError(f"{name}: {role} holds {values[~np.isfinite(values)][0]}; give finite numbers")
            if function in metrics.TASK_METRICS["binary"] and not np.isin(gold, (0, 1)).all():
                raise ValueError(f"{name}: references holds {gold[~np.isin(gold, (0, 1))][0]:g}; give 0 and 1")
            return {name: function(scores, gold)}

    return PairMetric
