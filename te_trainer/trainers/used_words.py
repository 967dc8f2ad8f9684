"""Word embeddings of a training's own vocabulary: what its texts never hold does not learn.

AdamW, the gradient and its norm go over every row of the word embeddings, in every step. Of a multilingual model those
are most of its weights, and a pool of pairs knows a small part of its vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from te_trainer.errors import InputError

ROWS = 10_000  # of a dataset, that are looked at together


class UsedWords(nn.Embedding):
    """Word embeddings of which some rows are trained; checkpoints hold all of them, as `nn.Embedding`'s would.

    It is an `nn.Embedding` of the whole vocabulary to all who ask: some optimisers treat these in a way of their own.

    Args:
        words: what it stands for. It keeps its parameter, which meanwhile has the trained rows alone.
        used: shape (vocabulary,), whether a row is trained.
    """

    def __init__(self, words: nn.Embedding, used: np.ndarray) -> None:
        super().__init__(words.num_embeddings, words.embedding_dim, words.padding_idx, _weight=words.weight.detach())
        self.words = [words]  # not a submodule
        self.weight = words.weight
        order = np.argsort(~used, kind="stable")
        self.order, self.place = (
            torch.from_numpy(places).to(words.weight.device) for places in (order, np.argsort(order))
        )
        self.padding = None if words.padding_idx is None else int(self.place[words.padding_idx])
        self.all_rows = words.weight.detach()[self.order]
        self._put(self.all_rows[: int(used.sum())])
        self.register_state_dict_post_hook(_save_all)
        self.register_load_state_dict_pre_hook(_load_all)

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Embedding.forward`; with gradients, for trained rows only."""
        learns = self.training and torch.is_grad_enabled()
        return F.embedding(self.place[input], self.weight if learns else self._all(), self.padding)

    def vocabulary(self) -> Tensor:
        """All rows where they belong, shape (vocabulary, hidden)."""
        return self._all()[self.place]

    def restore(self) -> nn.Embedding:
        """What it stood for, with all rows."""
        self._put(self.vocabulary())
        return self.words[0]

    def _all(self) -> Tensor:
        # among several processes accelerate moves a model from "cpu" to "cpu:0", which copies its parameters
        if self.weight.data_ptr() != self.all_rows.data_ptr():
            self.all_rows[: len(self.weight)] = self.weight.detach()
        return self.all_rows

    def _apply(self, fn: Any, recurse: bool = True) -> UsedWords:
        # not buffers: DistributedDataParallel would send them around in each step
        super()._apply(fn, recurse)
        self.all_rows = fn(self.all_rows)
        self.order, self.place = (places.to(self.weight.device) for places in (self.order, self.place))
        return self

    def _put(self, rows: Tensor) -> None:
        # the parameter stays the same object: an optimiser knows it
        self.weight.data = rows
        self.weight.grad = None


def _save_all(module: UsedWords, state: dict[str, Any], prefix: str, _: Any) -> None:
    state[f"{prefix}weight"] = module.vocabulary()


def _load_all(module: UsedWords, state: dict[str, Any], prefix: str, *_: Any) -> None:
    name = f"{prefix}weight"
    if name in state:
        rows = state[name]  # of a file, on the CPU
        module.all_rows.copy_(rows[module.order.to(rows.device)])
        state[name] = module.all_rows[: len(module.weight)].clone()


@contextlib.contextmanager
def train_used_words(model: PreTrainedModel, dataset: Dataset, padding: int) -> Iterator[None]:
    """Within the block, train only those word embeddings that occur in a dataset.

    Nothing happens to a model whose word embeddings are not trained, or are the weights of something else too.

    Args:
        dataset: what is trained on; tokens are in its columns `input_ids`, `input_ids1`, `input_ids2`.
        padding: the token that fills its batches.
    """
    words: Any = _words_of(model)
    if not _is_plain(model, words):
        yield
        return
    used = used_words(dataset, words.num_embeddings)
    used[padding] = True
    if words.padding_idx is not None:
        used[words.padding_idx] = True
    replaced = UsedWords(words, used)
    model.set_input_embeddings(replaced)
    try:
        yield
    finally:
        model.set_input_embeddings(replaced.restore())


def used_words(dataset: Dataset, vocabulary: int) -> np.ndarray:
    """Which tokens occur in a dataset, shape (vocabulary,)."""
    used = np.zeros(vocabulary, dtype=bool)
    columns = [name for name in dataset.column_names if name.startswith("input_ids")]
    for table in dataset.select_columns(columns).with_format("arrow").iter(ROWS):
        for name in columns:
            used[table[name].combine_chunks().flatten().to_numpy()] = True
    return used


class FitOptimizerToVocabulary(TrainerCallback):
    """Give each trained token embedding its own moments, where a trainer trains again and on other texts."""

    def __init__(self) -> None:
        # of the vocabulary, that the last training of this trainer trained; None for all
        self.trained: Tensor | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at what a checkpoint, or an earlier training of the same trainer, left in the optimiser.

        Raises:
            InputError: a checkpoint holds moments of another number of tokens; which they are, it does not say.
        """
        words = _words_of(kwargs["model"])
        if not isinstance(words, nn.Embedding):
            return
        rows = words.order[: len(words.weight)] if isinstance(words, UsedWords) else None
        resumed = state.global_step > 0
        before, self.trained = None if resumed else self.trained, rows
        moments = (getattr(kwargs["optimizer"], "state", None) or {}).get(words.weight, {})
        for name, values in moments.items():
            if not isinstance(values, Tensor) or values.dim() != 2:
                continue
            if values.is_floating_point():
                values = moments[name] = _move_rows(values, before, rows, words.num_embeddings)
            if values.shape != words.weight.shape:
                raise InputError(
                    f"train_dataset: the optimiser has trained {len(values)} words, and {len(words.weight)} are in "
                    "these texts; go on with the texts that it began with, or begin anew with a new trainer"
                )


def _move_rows(values: Tensor, before: Tensor | None, after: Tensor | None, vocabulary: int) -> Tensor:
    """Rows of the tokens `after` out of those of the tokens `before`, None for all; tokens that are new get zeros."""
    if before is not None:
        whole = values.new_zeros(vocabulary, values.shape[1])
        whole[before] = values
        values = whole
    return values[after] if after is not None and len(values) == vocabulary else values


def _words_of(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        # characters, for example
        return None


def _is_plain(model: nn.Module, words: Any) -> bool:
    if type(words) is not nn.Embedding or not words.weight.requires_grad:
        return False
    return sum(weight is words.weight for _, weight in model.named_parameters(remove_duplicate=False)) == 1
