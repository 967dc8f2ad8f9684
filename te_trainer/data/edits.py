"""Pairs whose order of similarity is known without a label: a sentence with itself, with two edits, with another."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import numpy as np
import regex

from te_trainer.data.words import UNSPACED

# From the most to the least similar.
GRADES = ("itself", "light edit", "heavy edit", "another sentence")
MIN_WORDS = 4  # words of a sentence; shorter ones have no edit that keeps their meaning
# A word, or a character of a script without spaces, and the white space after it.
WORD = regex.compile(rf"({UNSPACED}|(?:(?!{UNSPACED})\S)+)(\s*)")


def graded_pairs(sentences: Iterable[str], count: int, seed: int) -> dict[str, list[str]]:
    """Pair sentences with themselves, a light and a heavy edit of themselves, and another sentence.

    A light edit changes the case of the first letter, swaps two letters of the longest word and drops the most frequent
    word, which is a function word as a rule. A heavy edit replaces half of the words, the rarest ones, by the rarest of
    another sentence. In scripts and texts without spaces, characters are the words.

    Returns:
        Columns `sentence1` and `sentence2`: of each of `count` sentences one row for each of `GRADES`, in their order.
        Repeated and very short sentences are passed over; the columns are empty where there are not three others.
    """
    usable = [text for text in dict.fromkeys(sentences) if len(_split(text)[0]) >= MIN_WORDS]
    pairs: dict[str, list[str]] = {"sentence1": [], "sentence2": []}
    if len(usable) < 3:
        return pairs
    rng = random.Random(seed)
    frequency = Counter(word.lower() for text in usable for word in set(_split(text)[0]))
    for text in rng.sample(usable, min(count, len(usable))):
        donor, other = rng.sample([each for each in rng.sample(usable, 3) if each != text][:2], 2)
        pairs["sentence1"] += [text] * len(GRADES)
        pairs["sentence2"] += [text, _edit_lightly(text, frequency, rng), _edit_heavily(text, donor, frequency), other]
    return pairs


def graded_order(scores: np.ndarray) -> float:
    """How often neighbouring grades are scored in their order, a fraction; equal scores count half.

    Of the scores of `graded_pairs`, shape (n,): 1 where every sentence's pairs come in order, about 0.5 for scores that
    say nothing, NaN without scores.
    """
    if not len(scores):
        return float("nan")
    steps = -np.diff(scores.astype(np.float64).reshape(-1, len(GRADES)), axis=1)
    return float(np.mean((steps > 0) + 0.5 * (steps == 0)))


def _split(text: str) -> tuple[list[str], list[str]]:
    """The words of a text, and the white space after each."""
    if len(text.split()) == 1:
        return list(text), [""] * len(text)
    found = WORD.findall(text)
    return [word for word, _ in found], [space for _, space in found]


def _edit_lightly(text: str, frequency: Counter[str], rng: random.Random) -> str:
    words, spaces = _split(text)
    if len(words) > MIN_WORDS:
        most_frequent = max(range(len(words)), key=lambda index: frequency[words[index].lower()])
        behind = spaces.pop(most_frequent)
        del words[most_frequent]
        if most_frequent:
            spaces[most_frequent - 1] = spaces[most_frequent - 1] or behind
    longest = max(range(len(words)), key=lambda index: len(words[index]))
    word = words[longest]
    if len(word) > 3:
        at = rng.randrange(1, len(word) - 2)
        words[longest] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    result = _join(words, spaces)
    return result[:1].swapcase() + result[1:]


def _edit_heavily(text: str, donor: str, frequency: Counter[str]) -> str:
    words, spaces = _split(text)
    rarest = sorted(range(len(words)), key=lambda index: frequency[words[index].lower()])
    replacements = sorted(_split(donor)[0], key=lambda word: frequency[word.lower()])
    for number, index in enumerate(sorted(rarest[: (len(words) + 1) // 2])):
        words[index] = replacements[number % len(replacements)]
    return _join(words, spaces)


def _join(words: Iterable[str], spaces: Iterable[str]) -> str:
    return "".join(part for pair in zip(words, spaces, strict=True) for part in pair).strip()
