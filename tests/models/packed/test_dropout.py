"""Dropout for CPUs: what `nn.Dropout` does, from fewer random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from te_trainer.models import CrossEncoder
from te_trainer.models.packed.dropout import CPUDropout, cpu_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_are_dropped_at_the_rate_and_the_others_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropout, values = CPUDropout(p), torch.ones(10, 1001, dtype=dtype)
    dropped = torch.stack([dropout(values) for _ in range(400)]).float()
    kept = dropped != 0
    # five standard deviations of a share of four million draws, in masks that drop multiples of 1/256
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=1.5e-3)
    assert kept[..., :1000].float().mean((0, 1)).reshape(-1, 8).mean(0).tolist() == pytest.approx([1 - p] * 8, abs=5e-3)
    assert dropped[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=5e-3)


def test_a_rare_drop_happens_and_a_rare_keep_too() -> None:
    """Rates between the multiples of 1/256."""
    torch.manual_seed(0)
    for p in (0.001, 0.999):
        zeros = torch.stack([CPUDropout(p)(torch.ones(1000)) == 0 for _ in range(5000)])
        assert float(zeros.float().mean()) == pytest.approx(p, abs=1e-4)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (CPUDropout(0.5)(torch.ones(1_000_000)) != 0).float() - 0.5
    for distance in range(1, 9):
        assert abs(float((kept[:-distance] * kept[distance:]).mean())) < 2e-3


def test_gradients_pass_where_values_did() -> None:
    values = torch.randn(50, 7, requires_grad=True)
    dropped = CPUDropout(0.3)(values)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, dropped.detach() / values.detach())


def test_masks_follow_from_the_seed_and_change() -> None:
    dropout, values = CPUDropout(0.2), torch.ones(333)
    torch.manual_seed(5)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(5)
    assert torch.equal(dropout(values), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_are_those_of_torch(p: float) -> None:
    values = torch.randn(9)
    assert torch.equal(CPUDropout(p)(values), nn.Dropout(p)(values))


def test_a_model_keeps_its_weights_and_its_scores(tiny: Path) -> None:
    encoder = CrossEncoder.from_pretrained(str(tiny))
    model = encoder.model.eval()
    inputs = encoder.tokenizer(["one text"], ["another text"], return_tensors="pt")
    names, before = list(model.state_dict()), encoder.scores(**inputs)
    places = [name for name, module in model.named_modules() if type(module) is nn.Dropout]
    assert places
    with pytest.raises(KeyError), cpu_dropout(model), cpu_dropout(model):
        assert [name for name, module in model.named_modules() if type(module) is CPUDropout] == places
        assert not any(type(module) is nn.Dropout for module in model.modules())
        assert list(model.state_dict()) == names
        assert torch.equal(encoder.scores(**inputs), before)
        model.train()
        assert not torch.equal(encoder.scores(**inputs), encoder.scores(**inputs))
        raise KeyError
    assert [name for name, module in model.named_modules() if type(module) is nn.Dropout] == places
    assert all(model.get_submodule(name).training for name in places)
