"""What contrastive training adds (Trans-Encoder, section 2.1): views of sentences, a head, negatives of all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import data
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.errors import InputError
from te_trainer.losses import info_nce
from te_trainer.models import BiEncoder
from te_trainer.models.tokenization import tokenise
from te_trainer.trainers.datasets import CHECKED_TOGETHER, PairCheck

MIN_MASKED_LENGTH = 30  # characters (Mirror-BERT's code, src/data_loader.py)
HEAD_NAME = "projection_head"


class SentenceViews(data.Dataset[dict[str, Any]]):
    """Positive pairs, tokenised when they are read. Index `epoch * len + row` gives a row's view in that epoch.

    A mask token replaces `span` characters of `sentence2` (Mirror-BERT), at a position that follows from (seed, epoch,
    row) alone.
    """

    def __init__(self, pairs: Dataset, encoder: BiEncoder, span: int = 0, seed: int = 0) -> None:
        check = PairCheck("train_dataset", label_needed=False)
        check.columns(pairs)
        if span and encoder.tokenizer.mask_token is None:
            raise InputError("span: the model's tokenizer has no mask token to replace a span with; set span to 0")
        self.pairs = pairs.select_columns(list(SENTENCE_COLUMNS))
        for start in range(0, len(pairs), CHECKED_TOGETHER):
            check.texts(self.pairs[start : start + CHECKED_TOGETHER], start)
        # data workers that are not forked get a copy of all this, so that no model is among it
        self.tokenizer, self.max_length, self.prompt = encoder.tokenizer, encoder.max_length, encoder.prompt
        self.span, self.seed = span, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        epochs_and_rows = [divmod(index, len(self)) for index in indices]
        one, two = (self.pairs[[row for _, row in epochs_and_rows]][column] for column in SENTENCE_COLUMNS)
        if self.span:
            mask = str(self.tokenizer.mask_token)
            two = [
                mask_span(text, self.span, mask, np.random.default_rng((self.seed, epoch, row, 1)))
                for text, (epoch, row) in zip(two, epochs_and_rows, strict=True)
            ]
        sides = ([self.prompt + text for text in side] for side in (one, two))
        ids = (tokenise(self.tokenizer, self.max_length, side).rows()["input_ids"] for side in sides)
        return [{"input_ids1": first, "input_ids2": second} for first, second in zip(*ids, strict=True)]


def mask_span(text: str, span: int, mask: str, generator: np.random.Generator) -> str:
    """Replace `span` consecutive characters by a mask token (Liu et al. 2021, "random span masking").

    A text of fewer than 30 characters stays as it is, as in the official code.
    """
    if len(text) < max(MIN_MASKED_LENGTH, span + 1):
        return text
    start = int(generator.integers(len(text) - span))
    return f"{text[:start]} {mask} {text[start + span :]}"


def in_batch_loss(embeddings1: Tensor, embeddings2: Tensor, temperature: float, both_views: bool) -> Tensor:
    """InfoNCE of this rank's vectors, shape (n, hidden), against the pairs of all ranks (Trans-Encoder, Eq. 1).

    With `both_views` both sides are anchors, and each other's negatives (Mirror-BERT, Eq. 1).
    """
    all_two, start = gather_with_gradient(embeddings2)
    if not both_views:
        return info_nce(embeddings1, all_two, temperature, start)
    all_one, _ = gather_with_gradient(embeddings1)
    forward = info_nce(embeddings1, all_two, temperature, start, anchor_side=all_one)
    backward = info_nce(embeddings2, all_one, temperature, start, anchor_side=all_two)
    return (forward + backward) / 2


def gather_with_gradient(vectors: Tensor) -> tuple[Tensor, int]:
    """All ranks' vectors in the order of the ranks.

    Backward, the gradients that all ranks give to a vector are summed on the rank it came from. With a loss that is a
    mean over each rank's own anchors, and an engine that averages gradients over ranks, weights then get the gradient
    of the whole batch on one rank. Shape (n, hidden), the same n on all ranks, becomes (ranks * n, hidden); the
    second value is the row at which this rank's vectors begin.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return vectors, 0
    gathered: Tensor = _AllGather.apply(vectors)  # type: ignore[no-untyped-call,unused-ignore]
    return gathered, dist.get_rank() * len(vectors)


class _AllGather(torch.autograd.Function):
    # torch's own (torch.distributed.nn) is deprecated
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        parts = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


class ProjectionHead(nn.Module):
    """A linear layer and tanh on [CLS], which is trained with and thrown away (SimCSE, section 4)."""

    def __init__(self, hidden: int, deviation: float = 0.02, seed: int = 0) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        nn.init.normal_(self.dense.weight, std=deviation, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.dense.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return torch.tanh(self.dense(vectors))


def attach_head(model: PreTrainedModel, seed: int) -> RemovableHandle:
    """Make a new head a part of an encoder, so that DDP, ZeRO and FSDP wrap it too; `detach_head` takes the result.

    In training mode `last_hidden_state` is then the head's output, of every token, because padding may stand before
    the first one; that costs less than a percent of a base model.
    """
    head = ProjectionHead(model.config.hidden_size, getattr(model.config, "initializer_range", 0.02), seed)
    model.add_module(HEAD_NAME, head.to(model.device))

    def project(module: nn.Module, inputs: Any, output: Any) -> Any:
        if module.training:
            output.last_hidden_state = getattr(module, HEAD_NAME)(output.last_hidden_state)
        return output

    return model.register_forward_hook(project)


def detach_head(model: PreTrainedModel, handle: RemovableHandle) -> None:
    handle.remove()
    delattr(model, HEAD_NAME)


def drop_saved_head(folder: Path) -> None:
    """Take the head's weights out of a saved encoder."""
    for path in folder.glob("[!.]*.safetensors"):
        weights = load_file(path)
        kept = {name: weight for name, weight in weights.items() if not name.startswith(f"{HEAD_NAME}.")}
        if len(kept) < len(weights):
            save_file(kept, path, metadata={"format": "pt"})
