"""Spearman's rank correlation, for `evaluate.load`, which copies this file elsewhere."""

from te_trainer.metrics.evaluate_metric import make_metric

PairMetric = make_metric("spearman")
