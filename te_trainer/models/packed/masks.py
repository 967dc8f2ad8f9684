"""Attention masks that are made without a look at what they hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS


@contextlib.contextmanager
def masks_unread() -> Iterator[None]:
    """Within the block, torch's and the plain attention get a mask for every batch.

    transformers leaves the mask of a batch without padding out. It looks into each batch for that, in each forward
    pass, and so waits until a GPU has done all that was asked of it before.
    """
    masks = ALL_MASK_ATTENTION_FUNCTIONS
    before = {name: masks[name] for name in ("sdpa", "eager")}
    for name, mask in before.items():
        masks[name] = _unread(mask)
    try:
        yield
    finally:
        for name, mask in before.items():
            masks[name] = mask


def _unread(mask: Callable[..., Any]) -> Callable[..., Any]:
    def always(*args: object, **values: object) -> Any:
        return mask(*args, **{**values, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})

    return always
