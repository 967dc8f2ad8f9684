"""Values of rows as texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from te_trainer.errors import InputError

# white space, and what is not seen: soft hyphens, zero-width spaces and joiners, marks of order and of direction
INVISIBLE = re.compile(r"[\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*")
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def as_texts(position: str, values: Iterable[Any]) -> list[str]:
    """Values of a row as texts without white space around them; one that is missing or invisible is empty."""
    texts = ["" if value is None else value for value in values]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{position}: a sentence is not text; correct or remove the row")
    return ["" if INVISIBLE.fullmatch(text) else text.strip() for text in texts]
