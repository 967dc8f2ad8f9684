"""Silence what a user of a run cannot act on. Errors still come through."""

from __future__ import annotations

import logging
import os
import warnings

# of whole runs: beginning of the sentence, category
WARNINGS: list[tuple[str, type[Warning]]] = [
    # DeepSpeed calls torch 2.13
    (r"`torch\.distributed\.\w+` is deprecated", FutureWarning),
    # peft asks transformers, and transformers itself
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),
]


def quiet_libraries() -> None:
    """Turn down the libraries' progress bars, load reports and warnings, for this process."""
    import datasets
    import transformers

    from te_trainer.distributed import device_type

    if device_type() == "cpu":
        # DeepSpeed, where installed, looks for a device whenever a Trainer is made, and warns that there is none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for message, category in WARNINGS:
        warnings.filterwarnings("ignore", message, category)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("DeepSpeed", "torch.distributed", "accelerate", "sentence_transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # but for a wait of minutes, until the Hub takes requests again
    requests = logging.getLogger("huggingface_hub.utils._http")
    requests.setLevel(logging.WARNING)
    requests.addFilter(_is_error_or_wait)


def _is_error_or_wait(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or record.getMessage().startswith("Rate limited.")
