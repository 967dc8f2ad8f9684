"""The losses against their formulas, written out in float64."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor

from te_trainer.losses import cosent, cosine_bce, cosine_mse, cosine_similarity, info_nce, logit_mse, soft_bce


def embeddings(dtype: torch.dtype = torch.float32, count: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(count, 16, generator=generator) for _ in range(2))
    return one.to(dtype).requires_grad_(), (one + 2 * two).detach().to(dtype).requires_grad_()


def soft_labels(count: int = 64) -> Tensor:
    """Cosines as a bi-encoder gives them: some below 0."""
    return torch.linspace(-0.4, 1.0, count)


def cosine_by_hand(one: Tensor, two: Tensor) -> Tensor:
    one, two = one.double(), two.double()
    return (one * two).sum(1) / ((one * one).sum(1).sqrt() * (two * two).sum(1).sqrt())


def bce_by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    probability = 1 / (1 + torch.exp(-logits.double()))
    labels = labels.double()
    return -(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()


def assert_equal_to_hand(loss: Tensor, by_hand: Tensor, inputs: list[Tensor]) -> None:
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)
    ours, theirs = torch.autograd.grad(loss, inputs), torch.autograd.grad(by_hand, inputs)
    for mine, hand in zip(ours, theirs, strict=True):
        assert hand.abs().max() > 1e-4
        torch.testing.assert_close(mine, hand, rtol=0, atol=1e-6)


def test_cosine_mse_is_the_mean_squared_error_of_cosines() -> None:
    one, two = embeddings()
    labels = soft_labels()
    by_hand = ((cosine_by_hand(one, two) - labels.double()) ** 2).mean()
    assert_equal_to_hand(cosine_mse(one, two, labels), by_hand, [one, two])


@pytest.mark.parametrize("shape", [(64,), (64, 1)])
def test_soft_bce_takes_labels_below_zero_as_they_are(shape: tuple[int, ...]) -> None:
    logits = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    labels = soft_labels()
    assert labels.min() < 0
    assert_equal_to_hand(soft_bce(logits, labels), bce_by_hand(logits.reshape(-1), labels), [logits])
    assert soft_bce(logits, labels).item() != pytest.approx(soft_bce(logits, labels.clamp(0, 1)).item(), abs=1e-3)


def test_soft_bce_is_finite_where_the_sigmoid_saturates() -> None:
    loss = soft_bce(torch.tensor([200.0, -200.0]), torch.tensor([-0.25, 1.0]))
    assert loss.item() == pytest.approx((200 * 1.25 + 200) / 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_16_bit_embeddings_stay_distinct(dtype: torch.dtype) -> None:
    """In bfloat16 thousands of cosines would fall onto a few values, and ranks with them."""
    one, two = embeddings(dtype, count=5000)
    cosines = cosine_similarity(one, two).detach()
    assert cosines.dtype == torch.float32
    assert cosines.unique().numel() > 4900
    torch.testing.assert_close(cosines.double(), cosine_by_hand(one, two).detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_16_bit_outputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    one, two = embeddings(dtype)
    labels = soft_labels()
    mse_by_hand = ((cosine_by_hand(one, two) - labels.double()) ** 2).mean()
    assert cosine_mse(one, two, labels).item() == pytest.approx(mse_by_hand.item(), abs=1e-6)
    logits = torch.linspace(-4, 4, 64).to(dtype)
    assert soft_bce(logits, labels).dtype == torch.float32
    assert soft_bce(logits, labels).item() == pytest.approx(bce_by_hand(logits, labels).item(), abs=1e-6)


def test_logit_mse_is_the_squared_distance_of_raw_logits() -> None:
    logits = (3 * torch.randn(64, 1, generator=torch.Generator().manual_seed(2))).requires_grad_()
    labels = soft_labels()
    assert_equal_to_hand(logit_mse(logits, labels), ((logits.double()[:, 0] - labels.double()) ** 2).mean(), [logits])


def test_cosent_is_its_formula_and_that_of_sentence_transformers() -> None:
    one, two = embeddings()
    labels = soft_labels().round(decimals=1)  # some are equal
    cosines = 20 * cosine_by_hand(one, two)
    terms = [
        torch.exp(cosines[lower] - cosines[higher])
        for higher in range(len(labels))
        for lower in range(len(labels))
        if labels[higher] > labels[lower]
    ]
    by_hand = torch.log1p(torch.stack(terms).sum())
    assert_equal_to_hand(cosent(one, two, labels), by_hand, [one, two])
    theirs = CoSENTLoss(None).compute_loss_from_embeddings([one, two], labels)
    assert cosent(one, two, labels).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_cosent_of_equal_labels_is_nothing_to_learn() -> None:
    one, two = embeddings()
    loss = cosent(one, two, torch.full((len(one),), 0.5))
    (gradient,) = torch.autograd.grad(loss, one)
    assert loss.item() == 0 and gradient.abs().max() == 0


def test_cosine_bce_takes_the_cosine_for_the_logit() -> None:
    one, two = embeddings()
    labels = soft_labels()
    assert_equal_to_hand(cosine_bce(one, two, labels), bce_by_hand(cosine_by_hand(one, two), labels), [one, two])


def info_nce_by_hand(anchors: Tensor, positives: Tensor, temperature: float, others: Tensor | None = None) -> Tensor:
    """One anchor after the other; `others` are more negatives, but for the anchor itself."""

    def cosine(one: Tensor, two: Tensor) -> Tensor:
        return (one @ two) / (one.norm() * two.norm())

    losses = []
    for place, anchor in enumerate(anchors.double()):
        scores = [torch.exp(cosine(anchor, positive) / temperature) for positive in positives.double()]
        more = [] if others is None else [other for row, other in enumerate(others.double()) if row != place]
        total = sum(scores) + sum(torch.exp(cosine(anchor, other) / temperature) for other in more)
        losses.append(-torch.log(scores[place] / total))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("both_views", [False, True])
def test_info_nce_is_its_formula(both_views: bool) -> None:
    one, two = embeddings(count=8)
    others = one if both_views else None
    loss = info_nce(one, two, 0.5, anchor_side=others)
    assert_equal_to_hand(loss, info_nce_by_hand(one, two, 0.5, others), [one, two])


def test_anchors_of_a_part_of_the_batch_meet_all_of_it() -> None:
    one, two = embeddings(count=8)
    halves = [info_nce(one[:4], two, 0.5, anchor_side=one), info_nce(one[4:], two, 0.5, offset=4, anchor_side=one)]
    assert_equal_to_hand(sum(halves) / 2, info_nce_by_hand(one, two, 0.5, one), [one, two])  # type: ignore[arg-type]


def test_info_nce_under_autocast_is_computed_in_float32() -> None:
    one, two = embeddings(count=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(one, two, 0.05, anchor_side=one)
    assert loss.item() == pytest.approx(info_nce_by_hand(one, two, 0.05, one).item(), abs=1e-6)
