"""Whether a model is better than another, in words: what the bootstrap intervals of their differences allow to say."""

from __future__ import annotations

import math
from typing import Any

from te_trainer.metrics import METRIC_TITLES, TASK_METRICS

# A set shows a difference in four of five draws when its standard error is 1 / (1.96 + 0.84) of that difference: the
# half of a 95 % interval is 1.96 standard errors, and a normal deviate is above -0.84 with a probability of 0.8.
DETECTED = (1.96 + 0.84) / 1.96
MOST_NEEDED = 100_000  # pairs; nobody scores more


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
                low, high = (-100 * bound for bound in reversed(difference["interval"]))
                gain, unit = -100 * difference["difference"], METRIC_TITLES[metrics[0].__name__]
                sentences.append(_verdict(entry["models"][1], first, where, unit, gain, low, high, pairs))
    return sentences


def pairs_needed(pairs: int, gain: float, half_width: float) -> int | None:
    """How many pairs would show a difference in four of five draws, to two digits; None above `MOST_NEEDED`.

    Args:
        pairs: Pairs that the interval comes from.
        gain: The difference.
        half_width: Half of the 95 % interval's width, which shrinks with the root of the number of pairs.
    """
    if not gain or (needed := pairs * (DETECTED * half_width / gain) ** 2) > MOST_NEEDED:
        return None
    unit = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return math.ceil(needed / unit) * unit


def _verdict(model: str, first: str, where: str, unit: str, gain: float, low: float, high: float, pairs: int) -> str:
    """What an interval from `low` to `high` says; all figures are times 100."""
    if low == high == 0:
        return f"{model} scores as {first} does on {where}, in every draw of the bootstrap."
    is_clear = low > 0 or high < 0
    # an interval that leaves out 0 must be seen to
    digits = 2 if is_clear and min(abs(low), abs(high)) < 0.05 else 1
    found = f"{gain:+z.{digits}f} {unit} × 100 (95 % interval {low:+z.{digits}f} to {high:+z.{digits}f})"
    if is_clear:
        return f"{model} is {'better' if low > 0 else 'worse'} than {first} on {where}: {found}."
    needed = pairs_needed(pairs, gain, (high - low) / 2)
    amount = f"more than {MOST_NEEDED:,}" if needed is None else f"about {needed:,}"
    said = f"{pairs:,} pairs are too few to tell whether {model} is better or worse than {first} on {where}: {found}."
    if (needed or MOST_NEEDED) <= pairs:
        # draws of very few pairs are skewed, and the calculation is not for them
        return said
    return f"{said} A difference of this size would need {amount} pairs to be seen in four of five draws."
