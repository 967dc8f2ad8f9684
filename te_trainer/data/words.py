"""The words of a text in any script."""

from __future__ import annotations

from collections.abc import Iterable

import regex

# Scripts that put no spaces between words. Two neighbouring characters of theirs count as a word.
# The long-vowel mark belongs to both Japanese scripts, and to Unicode's to neither.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORD = regex.compile(rf"{UNSPACED}+|(?:(?!{UNSPACED})[\w\p{{M}}])+")
STARTS_UNSPACED = regex.compile(UNSPACED)


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
