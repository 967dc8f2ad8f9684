"""The words of a text in any script, and pairs that say nothing, because both sentences consist of the same words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import regex
from datasets import Dataset
from scipy.sparse import csr_array

# Scripts that put no spaces between words. Two neighbouring characters of theirs count as a word.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORD = regex.compile(rf"{UNSPACED}+|(?:(?!{UNSPACED})[\w\p{{M}}])+")
STARTS_UNSPACED = regex.compile(UNSPACED)
BLOCK = 65_536  # pairs that are compared at once


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words; of scripts without spaces, into each two neighbouring characters."""
    found: list[str] = []
    for word in WORD.findall(text.lower()):
        if len(word) > 2 and STARTS_UNSPACED.match(word):
            found += [word[start : start + 2] for start in range(len(word) - 1)]
        else:
            found.append(word)
    return found


def number_words(texts: Iterable[str]) -> tuple[list[list[int]], dict[str, int]]:
    """Number the words of texts in the order in which they first occur.

    Returns:
        The numbers of each text's words, and the number of each word.
    """
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(word, len(numbers)) for word in split_words(text)] for text in texts], numbers


def near_duplicates(sentences: Dataset, rows: np.ndarray, threshold: float = 0.9) -> np.ndarray:
    """Find the pairs whose sets of words are nearly equal.

    Args:
        sentences: Column `sentence1`.
        rows: Pairs of rows, int64, shape (n, 2).
        threshold: Smallest part of the words of both that they share (Jaccard's index) of a near-duplicate.

    Returns:
        Whether each pair is one, bool, shape (n,). Sentences without any word are no near-duplicates.
    """
    present, index = np.unique(rows, return_inverse=True)
    pairs = index.reshape(rows.shape)
    numbers, vocabulary = number_words(sentences.select(present)["sentence1"])
    sets = [sorted(set(each)) for each in numbers]
    ends = np.cumsum([0, *map(len, sets)])
    flat = np.fromiter((number for each in sets for number in each), dtype=np.int32, count=ends[-1])
    words = csr_array((np.ones(len(flat), dtype=np.int32), flat, ends), shape=(len(sets), max(1, len(vocabulary))))
    sizes = np.diff(ends)
    found = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), BLOCK):
        one, two = pairs[start : start + BLOCK].T
        shared = words[one].multiply(words[two]).sum(axis=1)
        either = sizes[one] + sizes[two] - shared
        found[start : start + BLOCK] = (shared >= threshold * either) & (shared > 0)
    return found
