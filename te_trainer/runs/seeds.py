"""The seed of each training of a run."""

from __future__ import annotations

import numpy as np

from te_trainer.config.schema import KINDS, Kind


def training_seed(seed: int, cycle: int, kind: Kind, model: int) -> int:
    """The seed of one training: its head, order and dropout are drawn independently of all other trainings.

    A sum would equal that of another run: 2021 and a later cycle, 2023 and an earlier one.

    Args:
        seed: Seed of the run.
        cycle: Cycle of the training; 0 is step 0.
        kind: Kind of encoder that is trained.
        model: Index of the PLM among the run's `models`; one that is added changes nothing for those before it.

    Returns:
        A number from 0 to 2^31 - 1.
    """
    state = np.random.SeedSequence((seed, cycle, KINDS.index(kind), model)).generate_state(1)
    return int(state[0]) >> 1
