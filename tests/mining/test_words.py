"""BM25 and near-duplicates: what counts as a word, and whose words are alike."""

from __future__ import annotations

import sys
from math import log

import numpy as np
import pytest
from datasets import Dataset

from te_trainer.data.words import split_words
from te_trainer.errors import InputError
from te_trainer.mining import near_duplicates as near_duplicates_module
from te_trainer.mining.bm25 import bm25_pairs
from te_trainer.mining.near_duplicates import SAME_TOKENS, look_the_same, near_duplicates


def no_progress(done: float) -> None:
    """Nobody looks."""


def sentences(*texts: str) -> Dataset:
    return Dataset.from_dict({"sentence1": texts})


@pytest.mark.parametrize(
    "text, words",
    [
        ("The router's LED: blinks, red!", ["the", "router", "s", "led", "blinks", "red"]),
        ("猫坐在 垫", ["猫坐", "坐在", "垫"]),
        ("GPU很快", ["gpu", "很快"]),
        ("サーバー", ["サー", "ーバ", "バー"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # vowel signs are parts of the words
        ("?!... ", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def scores_by_formula(texts: list[str]) -> np.ndarray:
    """Lucene's BM25 from its formula, with k1 = 1.5 and b = 0.75, of each text for each; a query's word counts once."""
    words = [text.split() for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = np.zeros((len(words), len(words)))
    for query, document in np.ndindex(*scores.shape):
        for word in set(words[query]) & set(words[document]):
            holding = sum(word in each for each in words)
            times, length = words[document].count(word), len(words[document])
            idf = log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            scores[query, document] += idf * times / (times + 1.5 * (1 - 0.75 + 0.75 * length / mean))
    return scores


def test_partners_have_the_highest_scores_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{int(word)}" for word in rng.zipf(1.5, rng.integers(3, 9)) % 60) for _ in range(80)]
    scores = scores_by_formula(texts)
    np.fill_diagonal(scores, 0)
    done: list[float] = []
    pairs = bm25_pairs(sentences(*texts), np.arange(80), 4, done.append)
    assert len(done) == 80 and done == sorted(done) and done[-1] == 1
    for anchor, expected in enumerate(scores):
        partners = pairs[pairs[:, 0] == anchor, 1]
        best = np.sort(expected)[::-1][:4]
        assert len(set(partners)) == len(partners)
        assert expected[partners] == pytest.approx(best[best > 0], rel=1e-5)


def test_sentences_that_differ_in_a_number_alone_are_partners_of_each_other() -> None:
    texts = sentences(*(f"order n{number} is late" for number in range(50)))
    pairs = bm25_pairs(texts, np.arange(50), 3, no_progress)
    assert np.bincount(pairs[:, 1]).tolist() == [3] * 50


def test_a_sentence_that_shares_no_word_finds_no_partner() -> None:
    pairs = bm25_pairs(sentences("red light blinks", "zebra", "the light is red", "!?"), np.arange(4), 3, no_progress)
    assert pairs.tolist() == [[0, 2], [2, 0]]


def test_texts_without_spaces_find_partners() -> None:
    texts = sentences("猫坐在垫子上", "今天天气很好", "一只猫坐在垫子", "天气不好")
    assert bm25_pairs(texts, np.arange(4), 1, no_progress).tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]]


@pytest.mark.parametrize("texts", [["a sentence"], ["?", "!"], []])
def test_nothing_to_find(texts: list[str]) -> None:
    assert bm25_pairs(sentences(*texts), np.arange(len(texts)), 5, no_progress).shape == (0, 2)


def test_bm25_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(InputError, match=r"pip install 'te_trainer\[mining\]'"):
        bm25_pairs(sentences("one", "two"), np.arange(2), 1, no_progress)


def test_near_duplicates_share_nine_words_of_ten() -> None:
    ten = "a b c d e f g h i j"
    texts = sentences(ten, "J I h g f e d c b a!", ten + " k", ten + " k l", "猫坐在垫子上", "猫坐在垫子上。", "?", "!")
    pairs = [(0, 1), (0, 2), (0, 3), (4, 5), (6, 7), (0, 6)]
    assert near_duplicates(texts, np.array(pairs)).tolist() == [True, True, False, True, False, False]
    assert near_duplicates(texts, np.array(pairs), threshold=0.8).tolist() == [True, True, True, True, False, False]
    assert near_duplicates(texts, np.empty((0, 2), dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize("words", [1, 100, near_duplicates_module.WORDS])
def test_near_duplicates_of_many_pairs_are_those_of_sets(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates_module, "WORDS", words)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(300)]
    rows = rng.integers(0, 300, (2_000, 2))
    sets = [set(text.split()) for text in texts]
    expected = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= 0.9 for a, b in rows.tolist()]
    assert 0 < sum(expected) < len(rows)
    assert near_duplicates(sentences(*texts), rows).tolist() == expected


def test_texts_look_the_same_where_no_start_tells_them_apart() -> None:
    near = 1 - SAME_TOKENS / 2
    one, two = np.array([1.0, near, near, 0.5]), np.array([1.0, 0.5, near, near])
    assert look_the_same([one]).tolist() == [True, True, True, False]
    assert look_the_same([one, two]).tolist() == [True, False, True, False]
