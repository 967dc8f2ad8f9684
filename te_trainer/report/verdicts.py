"""Whether a model is better than another, in words: what the bootstrap intervals of their differences allow to say."""

from __future__ import annotations

import math
from typing import Any

# A set shows a difference in four of five draws when its standard error is 1 / (1.96 + 0.84) of that difference: the
# half of a 95 % interval is 1.96 standard errors, and a normal deviate is above -0.84 with a probability of 0.8.
DETECTED = (1.96 + 0.84) / 1.96
MOST_NEEDED = 100_000  # pairs; nobody scores more


def verdict(model: str, first: str, where: str, unit: str, difference: dict[str, Any], pairs: int) -> str:
    """Whether a model is better or worse than the first one, or unclear, as a sentence.

    Args:
        where: What both were scored on.
        unit: Of the scores times 100.
        difference: `{"difference": f, "interval": [f, f]}`, by which the model scores higher, as fractions.
        pairs: Pairs that the interval comes from.
    """
    gain, (low, high) = 100 * difference["difference"], (100 * bound for bound in difference["interval"])
    if low == high == 0:
        return f"{model} scores as {first} does on {where}, in every draw of the bootstrap."
    # an interval that leaves out 0 must be seen to, with two digits at most
    is_clear = round(low, 2) > 0 or round(high, 2) < 0
    digits = 2 if is_clear and min(abs(low), abs(high)) < 0.05 else 1
    found = f"{gain:+z.{digits}f} {unit} (95 % interval {low:+z.{digits}f} to {high:+z.{digits}f})"
    if is_clear:
        return f"{model} is {'better' if low > 0 else 'worse'} than {first} on {where}: {found}."
    needed = pairs_needed(pairs, gain, (high - low) / 2)
    amount = f"more than {MOST_NEEDED:,}" if needed is None else f"about {needed:,}"
    said = f"{pairs:,} pairs are too few to tell whether {model} is better or worse than {first} on {where}: {found}."
    if (needed or MOST_NEEDED) <= pairs:
        # draws of very few pairs are skewed, and the calculation is not for them
        return said
    return f"{said} A difference of this size would need {amount} pairs to be seen in four of five draws."


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
