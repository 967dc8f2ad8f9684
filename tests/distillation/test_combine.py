"""Several teachers' labels as one, against the definitions written out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from te_trainer.distillation.combine import combine
from te_trainer.report.remarks import ENSEMBLE_DESCRIPTIONS

ONES = [1.0, 1.0, 1.0]


def teachers(count: int = 500, how_many: int = 3) -> list[np.ndarray]:
    """Teachers that agree in part, on scales of their own, each with ties."""
    generator = np.random.default_rng(0)
    truth = generator.random(count)
    labels = []
    for number in range(how_many):
        scores = (truth + generator.normal(0, 0.3, count)) * 10.0**-number + number
        labels.append(np.round(scores, 2 + number).astype(np.float32))
    return labels


def test_mean_is_the_plain_mean() -> None:
    labels = teachers()
    result = combine(labels, "mean", ONES)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.mean(np.stack(labels).astype(np.float64), axis=0).astype(np.float32))


@pytest.mark.parametrize("how", ["mean", "weighted", "rank"])
def test_one_teacher_is_left_as_it_is(how: str) -> None:
    (labels,) = teachers(how_many=1)
    assert len(np.unique(labels)) < len(labels)
    np.testing.assert_array_equal(combine([labels], how, [0.3]), labels)  # type: ignore[arg-type]


def test_weights_count_by_their_ratios() -> None:
    labels = teachers()
    result = combine(labels, "weighted", [1, 2, 5])
    np.testing.assert_allclose(result, (labels[0] + 2.0 * labels[1] + 5.0 * labels[2]) / 8, rtol=1e-6)
    np.testing.assert_allclose(combine(labels, "weighted", [0.1, 0.2, 0.5]), result, rtol=1e-6)
    np.testing.assert_array_equal(combine(labels, "weighted", ONES), combine(labels, "mean", ONES))
    np.testing.assert_array_equal(combine(labels, "mean", [1, 2, 5]), combine(labels, "mean", ONES))


def test_rank_has_the_means_values_in_the_order_of_mean_ranks() -> None:
    labels = teachers()
    result = combine(labels, "rank", ONES)
    assert result.dtype == np.float32
    expected = combine(labels, "mean", ONES)
    assert result.mean(dtype=np.float64) == pytest.approx(expected.mean(dtype=np.float64))
    ranks = sum(rankdata(scores, method="average") for scores in labels)
    _, place, count = np.unique(ranks, return_inverse=True, return_counts=True)
    alone = count[place] == 1
    assert alone.mean() > 0.7 and np.isin(result[alone], expected).all()
    order = np.lexsort((np.arange(len(ranks)), ranks))
    assert (np.diff(result[order]) >= 0).all()
    assert spearmanr(result, combine(labels, "mean", ONES)).statistic < 0.9999
    assert "ranks by the mean" in ENSEMBLE_DESCRIPTIONS["rank"]


def test_the_order_by_rank_survives_any_monotone_rescaling_of_a_teacher() -> None:
    labels = teachers()
    stretched = [labels[0], np.exp(4 * labels[1].astype(np.float64)), 1000 * labels[2] - 7]
    assert not crossed(combine(labels, "rank", ONES), combine(stretched, "rank", ONES))
    assert crossed(combine(labels, "mean", ONES), combine(stretched, "mean", ONES))


def crossed(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether some two pairs stand one way round in one and the other way round in the other."""
    return bool((np.sign(np.subtract.outer(one, one)) * np.sign(np.subtract.outer(two, two)) < 0).any())


def test_the_order_of_the_pairs_does_not_matter() -> None:
    """Gold sets may be sorted by their scores."""
    labels = [np.round(scores, 1) for scores in teachers()]
    order = np.random.default_rng(0).permutation(len(labels[0]))
    for how in ("mean", "rank"):
        shuffled = combine([scores[order] for scores in labels], how, ONES)
        np.testing.assert_array_equal(shuffled, combine(labels, how, ONES)[order])


def test_pairs_of_equal_mean_ranks_share_their_values() -> None:
    result = combine([np.float32([0.1, 0.2, 0.9]), np.float32([0.2, 0.1, 0.8])], "rank", [1, 1])
    assert result.tolist() == pytest.approx([0.15, 0.15, 0.85])
    result = combine([np.float32([0.2, 0.4, 0.9]), np.float32([0.8, 0.1, 0.9])], "rank", [1, 1])
    assert result.tolist() == pytest.approx([0.375, 0.375, 0.9])


def test_memory_does_not_grow_with_the_number_of_teachers() -> None:
    import tracemalloc

    count = 200_000

    def labels(how_many: int) -> Iterator[np.ndarray]:
        for number in range(how_many):
            yield np.random.default_rng(number).random(count, dtype=np.float32)

    for how in ("mean", "weighted", "rank"):
        peaks = []
        for how_many in (2, 12):
            tracemalloc.start()
            combine(labels(how_many), how, [1.0] * how_many)  # type: ignore[arg-type]
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 4 * count, how
