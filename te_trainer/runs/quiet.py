"""Silence what a user of a run cannot act on. Errors still come through."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Turn down the libraries' progress bars, load reports and warnings, for this process."""
    import datasets
    import transformers

    from te_trainer.distributed import device_type

    if device_type() == "cpu":
        # DeepSpeed, where installed, looks for a device whenever a Trainer is made, and warns that there is none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("DeepSpeed", "torch.distributed", "accelerate", "sentence_transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
