"""How far the gain of what a run keeps may be chance: the paired bootstrap over its sets with gold scores."""

from __future__ import annotations

from functools import cache
from typing import Any

from te_trainer.data.gold import Role
from te_trainer.distillation.selection import Selection
from te_trainer.metrics.bootstrap import Score, resampled
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.scoring import Scorer

# Of the dev set, or of all test sets: more would take minutes, and leave less than a point to chance.
MOST_PAIRS = 5000


def collect_gains(selection: Selection, scorer: Scorer) -> dict[str, Any]:
    """The gains of each PLM's kept encoders over its start, of those whose predictions are stored.

    Returns:
        `{NAME: {KIND: {"dev": GAIN, "test": GAIN}}}` with gains `{"difference": f, "interval": [f, f], "pairs": n}`, as
        fractions; that of several test sets is of their average. A start that is kept has none, nor have more than
        `MOST_PAIRS` pairs.
    """
    plan, store = selection.plan, selection.store
    pairs: dict[Role, int] = {}
    for role, gold in scorer.gold:
        pairs[role] = pairs.get(role, 0) + gold.different

    @cache
    def score(key: EncoderKey, wanted: Role) -> Score:
        scores = []
        for (role, gold), predicted in zip(scorer.gold, store.predictions(key), strict=True):
            if role == wanted:
                sample = (predicted, gold.scores, gold.groups)
                (drawn,) = resampled([scorer.metric], *sample, seed=plan.config.seed, name=gold.name)
                scores.append(Score(scorer.metric(predicted, gold.scores), drawn))
        return Score.mean(scores)

    gains: dict[str, Any] = {}
    for name in plan.models:
        start, gains[name] = EncoderKey.start(name), {}
        for kind in plan.kinds:
            key = EncoderKey(selection.best_cycle(name, kind) or 0, name, kind)
            if key.cycle and all(store.is_scored(each, with_predictions=True) for each in (start, key)):
                differences = {
                    role: score(key, role) - score(start, role) for role in pairs if pairs[role] <= MOST_PAIRS
                }
                gains[name][kind] = {
                    role: {"difference": gain.value, "interval": gain.interval, "pairs": pairs[role]}
                    for role, gain in differences.items()
                }
    return gains
