"""Edited sentences, whose order of similarity is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from te_trainer.data.edits import GRADES, graded_order, graded_pairs

SENTENCES = [
    "The parcel from the shop has not arrived yet.",
    "A refund of the second order would be welcome.",
    "Two children play chess in the garden of the school.",
    "The museum opens at nine on the first Sunday.",
    "Nobody answered the letter about the broken window.",
]


def overlap(one: str, two: str) -> float:
    first, second = set(one.lower().split()), set(two.lower().split())
    return len(first & second) / len(first | second)


def test_more_edited_sentences_share_fewer_words():
    pairs = graded_pairs(SENTENCES, 5, seed=1)
    rows = np.array([overlap(*pair) for pair in zip(pairs["sentence1"], pairs["sentence2"], strict=True)])
    assert (np.diff(rows.reshape(-1, len(GRADES)), axis=1) < 0).all()
    assert graded_order(rows) == 1.0
    assert sorted(pairs["sentence1"][:: len(GRADES)]) == sorted(SENTENCES)


def test_a_light_edit_keeps_all_words_but_the_most_frequent_one():
    pairs = graded_pairs(SENTENCES, 5, seed=1)
    row = 4 * pairs["sentence1"][::4].index(SENTENCES[2])
    light = pairs["sentence2"][row + 1]
    assert len(light.split()) == len(SENTENCES[2].split()) - 1
    assert sorted(light.lower().replace(" ", "")) != sorted(SENTENCES[2].lower().replace(" ", ""))
    words = light.lower().split()
    assert words.count("the") == 1  # of two
    assert {"two", "play", "chess", "garden"} <= set(words)


def test_a_seed_draws_the_same_edits_and_another_one_others():
    assert graded_pairs(SENTENCES, 3, seed=1) == graded_pairs(SENTENCES, 3, seed=1)
    assert graded_pairs(SENTENCES, 3, seed=1) != graded_pairs(SENTENCES, 3, seed=2)


def test_texts_without_spaces_are_edited_by_characters():
    texts = ["今日は天気がとてもいいです", "明日は雨が降るそうです", "電車が三十分遅れています"]
    pairs = graded_pairs(texts, 3, seed=1)
    assert len(pairs["sentence1"]) == 12
    for row in range(0, 12, 4):
        original, light, heavy = pairs["sentence2"][row : row + 3]
        assert len({original, light, heavy}) == 3


@pytest.mark.parametrize(
    "texts",
    [
        ["今日は 天気がとてもいいです", "明日は 雨が降るそうです", "電車が 三十分遅れています"],
        ["我的 iPhone 屏幕碎了", "请问 Visa 卡能付款吗", "包裹还没有到 怎么办"],
    ],
    ids=["a space", "Latin words"],
)
def test_a_space_does_not_make_words_of_a_script_without_spaces(texts):
    pairs = graded_pairs(texts, 3, seed=1)
    assert len(pairs["sentence1"]) == 12
    for row in range(0, 12, 4):
        original, light, heavy = pairs["sentence2"][row : row + 3]
        assert len(light) == len(original) - 1  # one character was dropped
        assert len({original, light, heavy}) == 3
        assert original.count(" ") == light.count(" ") == heavy.count(" ")


def test_scores_that_say_nothing_are_at_a_half():
    assert graded_order(np.zeros(40)) == 0.5
    assert graded_order(np.tile([1.0, 0.9, 0.5, 0.1], 10)) == 1.0
    assert graded_order(np.tile([0.1, 0.5, 0.9, 1.0], 10)) == 0.0
    assert graded_order(np.random.default_rng(0).random(8_000)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("texts", [[], ["One sentence of words alone."], ["a", "b c", "d e f"], SENTENCES[:2]])
def test_too_few_or_too_short_sentences_have_no_edits(texts):
    pairs = graded_pairs(texts, 10, seed=0)
    assert pairs == {"sentence1": [], "sentence2": []}
    assert math.isnan(graded_order(np.array([])))
