"""Masks that are made unread are the same to the model, and nobody waits for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from te_trainer.models.packed import AttentionBackend, choose_backend, use_backend
from te_trainer.models.packed.when_to_pack import SHORT

GPU = torch.device("cuda")


class CountReads(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def model(kind: str) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["intermediate_size"] = 64
    made: Any = LlamaModel(LlamaConfig(**sizes)) if kind == "decoder" else BertModel(BertConfig(**sizes))
    if kind == "eager":
        made.set_attn_implementation(kind)
    return made.eval()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "eager"])
def test_nothing_is_read_and_nothing_changes(kind: str, padded: bool) -> None:
    encoder = model(kind)
    inputs = {"input_ids": torch.randint(5, 50, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    if padded:
        inputs["attention_mask"][1:, 4:] = 0
    found, reads = [], []
    with torch.no_grad():
        for backend in (AttentionBackend(), choose_backend(encoder, SHORT, GPU)):
            with use_backend(encoder, backend), CountReads() as counted:
                found.append(encoder(**inputs).last_hidden_state[inputs["attention_mask"] == 1])
            reads.append(counted.count)
    assert reads[0] > reads[1] == 0
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)


def test_a_compiled_model_takes_them() -> None:
    encoder = model("encoder")
    compiled: Any = torch.compile(encoder, backend="eager", fullgraph=True)
    inputs = {"input_ids": torch.randint(5, 50, (3, 7)), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    with torch.no_grad(), use_backend(encoder, choose_backend(encoder, SHORT, GPU, compiled=True)):
        found = compiled(**inputs).last_hidden_state
        torch.testing.assert_close(found, encoder(**inputs).last_hidden_state, rtol=0, atol=1e-6)


def test_afterwards_and_for_long_texts_they_are_those_of_transformers() -> None:
    encoder, before = model("encoder"), ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    backend = choose_backend(encoder, SHORT, GPU)
    with use_backend(encoder, choose_backend(encoder, SHORT + 1, GPU)):
        assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is before
    with pytest.raises(KeyError), use_backend(encoder, backend):
        with use_backend(encoder, backend):
            pass
        assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is not before
        raise KeyError
    assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is before
