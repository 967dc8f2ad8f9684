"""What a `DataLoader` of a trainer is given: the rows as its collator takes them, and who makes batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from transformers import TrainingArguments

from te_trainer.models.collation import BiEncoderCollator, CrossEncoderCollator
from te_trainer.trainers.datasets import TokenRows


class WholeStream(torch.utils.data.IterableDataset[dict[str, Any]]):
    """A stream that each process reads as a whole, of which accelerate gives it every so many batches.

    One of several files accelerate would share out by files, which hold different numbers of batches: the process that
    has none left would leave the others waiting.
    """

    def __init__(self, rows: IterableDataset) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Let the stream draw another order."""
        self.rows.set_epoch(epoch)


def workers_asked_for(args: TrainingArguments) -> dict[str, Any]:
    """Keyword arguments of a `DataLoader` that say who makes its batches."""
    return {
        "num_workers": args.dataloader_num_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
        "multiprocessing_context": args.dataloader_multiprocessing_context,
        "in_order": args.dataloader_in_order,
    }


def worker_settings(args: TrainingArguments, collator: Any) -> dict[str, Any]:
    """Keyword arguments of a `DataLoader` that say how batches are made, and not of what."""
    return {
        "collate_fn": collator,
        "pin_memory": args.dataloader_pin_memory and args.device.type not in ("cpu", "mps"),
        **workers_asked_for(args),
    }


def batch_source(rows: Any, collator: Any) -> Any:
    """The rows as the collator reads them: one of ours gets arrays of token ids, and a user's gets lists."""
    is_ours = type(collator) in (BiEncoderCollator, CrossEncoderCollator)
    return TokenRows(rows) if is_ours and isinstance(rows, Dataset) else rows
