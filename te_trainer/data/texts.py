"""Values of rows as texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Number
from typing import Any

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.errors import InputError

# white space, and what is not seen: soft hyphens, zero-width spaces and joiners, marks of order and of direction
INVISIBLE = re.compile(r"[\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*")
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def no_text(name: str, value: Any) -> str:
    """What the value of a column is that should be a text, and how to fix it."""
    what = "number" if isinstance(value, Number) and not isinstance(value, bool) else type(value).__name__
    return f"{name} is a {what} ({' '.join(str(value).split())[:60]}); make the column text"


def as_texts(position: str, values: Iterable[Any], names: Iterable[str] = SENTENCE_COLUMNS) -> list[str]:
    """Values of a row as texts without white space around them; one that is missing or invisible is empty.

    Errors call the values by `names`.
    """
    texts = ["" if value is None else value for value in values]
    for name, text in zip(names, texts, strict=False):  # a line of a .txt file may have more
        if not isinstance(text, str):
            raise InputError(f"{position}: {no_text(name, text)}")
    return ["" if INVISIBLE.fullmatch(text) else text.strip() for text in texts]
