"""The seed of each training of a run."""

from __future__ import annotations

import numpy as np

from te_trainer.config.schema import KINDS, Kind


def training_seed(seed: int, cycle: int, kind: Kind, model: int) -> int:
    """The seed of one training: its head, order and dropout are drawn independently of all other trainings.

    A sum would equal that of another run: 2021 and a later cycle, 2023 and an earlier one.
    """
    state = np.random.SeedSequence((seed, cycle, KINDS.index(kind), model)).generate_state(1)
    return int(state[0]) >> 1
