"""The paper's hyper-parameters (Trans-Encoder, Table 16, and the official code where the table is silent)."""

from __future__ import annotations

from typing import Any

from te_trainer.config.schema import Kind, Size, Task

CYCLES: dict[Task, int] = {"sts": 3, "binary": 5}


# Where our trainers differ from transformers, whatever the task.
TRAINER_DEFAULTS: dict[str, Any] = {
    "eval_steps": 200,  # the official code evaluates and saves every 200 steps
    "per_device_eval_batch_size": 128,
    "save_total_limit": 2,
    "logging_steps": 50,
    # The trainers watch the loss themselves; this filter would hide what they look for.
    "logging_nan_inf_filter": False,
}


def paper_arguments(kind: Kind, task: Task, size: Size = "base") -> dict[str, Any]:
    """Training arguments of one half-cycle as the paper has them.

    Batch sizes are global ones. Warm-up and weight decay are the official code's (sentence-transformers 2.0): the
    cross-encoder warms up over a tenth of its steps, the bi-encoder not at all.
    """
    if kind == "cross-encoder":
        return {
            "learning_rate": 2e-5,
            "per_device_train_batch_size": 32,
            "num_train_epochs": 1 if task == "sts" else 3,
            "warmup_steps": 0.1,
            "weight_decay": 0.01,
        }
    return {
        "learning_rate": 5e-5,
        "per_device_train_batch_size": 128 if size == "base" else 64,
        "num_train_epochs": 10 if task == "sts" else 15,
        "warmup_steps": 0,
        "weight_decay": 0.01,
    }
