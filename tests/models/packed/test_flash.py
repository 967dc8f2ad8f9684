"""A packed row with unpadded flash attention gives what the padded batch gives.

No CPU has that attention, so a kernel in plain arithmetic stands below torch's own operator and derivative. What a GPU
computes is in tests/test_gpu.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from test_pack import LENGTH, MODELS, batch, config
from torch import Tensor

from te_trainer.models.packed import choose_backend, use_backend
from te_trainer.models.packed.flash import has_flash_attention
from te_trainer.models.packed.pack import is_packing
from te_trainer.models.packed.packing import Packing
from te_trainer.models.packed.transfer import mask_on_cpu, to_device
from te_trainer.models.packed.when_to_pack import PACKED_ON_GPU


class Kernel:
    """softmax(Q K^T * scale) V of each sentence by itself, for CPUs."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float]] = []  # the longest sentence and the dropout of each forward call
        self.wrong = 0.0

    def sentences(self, rows: tuple[Tensor, ...], offsets: Tensor, dropout: float, scale: float, seed: Tensor) -> Any:
        """Of each sentence: rows of shape (heads, tokens, d), probabilities and their mask."""
        generator = torch.Generator().manual_seed(int(seed[0]))
        for start, stop in pairwise(offsets.tolist()):
            query, key, *others = (each[start:stop].transpose(0, 1) for each in rows)
            probabilities = (query @ key.transpose(1, 2) * scale).softmax(-1)
            kept = torch.rand(probabilities.shape, generator=generator) >= dropout
            yield query, key, *others, probabilities, kept / (1 - dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, *rest: Any, **more: Any) -> Any:
        offsets_of_keys, longest, _, dropout, causal, _ = rest
        assert offsets.dtype == torch.int32 and offsets_of_keys is offsets and not causal
        assert int(offsets[-1]) == len(query) and int(offsets.diff().max()) <= longest
        self.calls.append((longest, dropout))
        # of the shapes and types that torch's own kernels give, which compiled code checks
        seed = (torch.randint(2**31, (2,)) if dropout else torch.zeros(2)).to(torch.uint64)
        found = self.sentences((query, key, value), offsets, dropout, more["scale"], seed)
        result = torch.cat([(p * mask.to(p.dtype) @ v).transpose(0, 1) for _, _, v, p, mask in found]) + self.wrong
        logsumexp = torch.zeros(query.shape[1], len(query))
        return result, logsumexp, seed, torch.zeros((), dtype=torch.uint64), query.new_zeros(0)

    def backward(self, gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> Any:
        _, _, offsets, _, _, _, dropout, _, seed, _ = rest
        parts = []
        for q, k, v, g, p, mask in self.sentences((query, key, value, gradient), offsets, dropout, more["scale"], seed):
            of_p = (g @ v.transpose(1, 2)) * mask.to(p.dtype)
            of_scores = p * (of_p - (of_p * p).sum(-1, keepdim=True)) * more["scale"]
            of_v = (p * mask.to(p.dtype)).transpose(1, 2) @ g
            parts.append([each.transpose(0, 1) for each in (of_scores @ k, of_scores.transpose(1, 2) @ q, of_v)])
        return tuple(map(torch.cat, zip(*parts, strict=True)))


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    has_flash_attention.cache_clear()
    kernel = Kernel()
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", kernel.forward, "CPU")
        library.impl("_flash_attention_backward", kernel.backward, "CPU")
        yield kernel
    has_flash_attention.cache_clear()


def two_of(name: str, dropout: float = 0.0) -> tuple[Any, Any]:
    auto = getattr(transformers, f"{name}ForSequenceClassification")
    torch.manual_seed(0)
    plain = auto._from_config(config(name, dropout), attn_implementation="eager")
    packed = auto._from_config(config(name, dropout))
    packed.load_state_dict(plain.state_dict())
    return plain, packed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["flash", "without"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_those_of_the_padded_batch(name: str, dtype: torch.dtype, kernel: Kernel) -> None:
    plain, packed = (model.train().to(dtype) for model in two_of(name))
    inputs = batch(name, 37)
    real, weights = inputs["attention_mask"].unsqueeze(-1), torch.randn(37, LENGTH, 32, dtype=dtype)
    hidden, gradients = {}, {}
    with use_backend(packed, PACKED_ON_GPU, training=True):
        for model in (packed, plain):
            hidden[model] = model.base_model(**inputs).last_hidden_state * real
            (hidden[model] * weights).sum().backward()
            gradients[model] = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    # both layers, once
    assert len(kernel.calls) == (2 if dtype == torch.float64 else 0)
    exact = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(hidden[packed], hidden[plain], atol=exact, rtol=exact)
    assert len(gradients[packed]) > 30
    assert gradients[packed].keys() == gradients[plain].keys()
    scale = max(float(value.abs().max()) for value in gradients[plain].values())
    for key, value in gradients[plain].items():
        torch.testing.assert_close(gradients[packed][key], value, atol=scale * exact / 10, rtol=1e-4, msg=key)


def test_the_kernel_is_told_the_longest_sentence_and_dropout_of_a_training_alone(kernel: Kernel) -> None:
    _, packed = two_of("Bert", dropout=0.1)
    packed.double()
    inputs = batch("Bert", 9)
    longest = Packing(inputs["attention_mask"]).longest
    assert longest == inputs["attention_mask"].sum(1).max()
    assert Packing(torch.ones(1, 3)).longest == 61  # the fillers
    with use_backend(packed, PACKED_ON_GPU, training=True):
        packed.train()(**inputs)
        packed.eval()(**inputs)
    assert kernel.calls == [(longest, 0.1)] * 2 + [(longest, 0.0)] * 2


def test_gradients_under_dropout_are_those_of_the_mask_that_was_drawn(kernel: Kernel) -> None:
    _, packed = two_of("Bert", dropout=0.3)
    packed.double().train()
    inputs = batch("Bert", 5)
    weight = packed.base_model.encoder.layer[0].attention.self.value.weight

    def loss() -> Tensor:
        torch.manual_seed(3)
        result: Tensor = packed(**inputs).logits.sum()
        return result

    with use_backend(packed, PACKED_ON_GPU, training=True):
        loss().backward()
        step = torch.zeros_like(weight)
        step[2, 3] = 1e-6
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * step)
                found.append(loss())
                weight.sub_(sign * step)
    torch.testing.assert_close((found[0] - found[1]) / 2e-6, weight.grad[2, 3], atol=1e-6, rtol=1e-4)


def test_it_is_taken_where_it_computes_what_attention_is(kernel: Kernel) -> None:
    device = torch.device("cpu")
    assert has_flash_attention(device, torch.bfloat16, 64)
    assert not has_flash_attention(device, torch.float32, 64)
    has_flash_attention.cache_clear()
    kernel.wrong = 0.2
    assert not has_flash_attention(device, torch.bfloat16, 64)


def test_memory_that_is_gone_is_no_answer(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(kernel, "sentences", fail)
    with pytest.raises(torch.OutOfMemoryError):
        has_flash_attention(torch.device("cpu"), torch.bfloat16, 64)


def test_it_is_not_taken_where_there_is_none() -> None:
    has_flash_attention.cache_clear()
    assert not has_flash_attention(torch.device("cpu"), torch.bfloat16, 64)
    has_flash_attention.cache_clear()


def test_a_gpu_packs_what_a_cpu_packs_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(*question: Any) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr("te_trainer.models.packed.when_to_pack.has_flash_attention", answer)
    gpu = torch.device("cuda")
    _, bert = two_of("Bert")
    assert choose_backend(bert, 512, gpu, "bfloat16") == PACKED_ON_GPU
    assert asked == [(gpu, torch.bfloat16, 8)]
    assert choose_backend(bert, 64, gpu, "bfloat16", compiled=True) == PACKED_ON_GPU
    assert choose_backend(bert, 64, gpu, "bfloat16", needs_padding=True) != PACKED_ON_GPU
    bert.set_attn_implementation("flex_attention")
    assert choose_backend(bert, 64, gpu, "bfloat16") != PACKED_ON_GPU
    with use_backend(bert, choose_backend(bert, 64, gpu, "bfloat16")):
        assert not is_packing(bert)


def test_a_mask_on_another_device_is_known_to_the_cpu() -> None:
    inputs = batch("Bert", 9)
    moved = to_device(inputs, torch.device("meta"))
    assert {value.device.type for value in moved.values()} == {"meta"}
    # nothing could be read back from "meta"
    assert mask_on_cpu(moved["attention_mask"]) is inputs["attention_mask"]
    assert mask_on_cpu(inputs["attention_mask"]) is inputs["attention_mask"]
