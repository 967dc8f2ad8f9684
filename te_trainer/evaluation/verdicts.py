"""Whether each model of an evaluation is better than the first, in words."""

from __future__ import annotations

from typing import Any

from te_trainer.metrics import METRIC_TITLES, TASK_METRICS
from te_trainer.report.verdicts import verdict


def verdicts(results: dict[str, Any]) -> list[str]:
    """A sentence for each model but the first, and each family of sets: better or worse than the first, or unclear.

    `results` are those of `te_trainer.evaluation.results.collect`. Where a family has several sets, the difference is
    that of the averages.
    """
    first = results["models"][0]["name"]
    against_first = [entry for entry in results["differences"] if entry["models"][0] == first]
    sentences = []
    for entry in against_first:
        for family, metrics in TASK_METRICS.items():
            sets = [column for column in results["columns"] if column["family"] == family]
            if sets:
                where = sets[0]["title"] if len(sets) == 1 else f"the average of {len(sets)} sets"
                pairs = sum(column["pairs"] for column in sets)
                difference = entry["average"][family]
                higher = {
                    "difference": -difference["difference"],
                    "interval": [-bound for bound in reversed(difference["interval"])],
                }
                unit = f"{METRIC_TITLES[metrics[0].__name__]} × 100"
                sentences.append(verdict(entry["models"][1], first, where, unit, higher, pairs))
    return sentences
