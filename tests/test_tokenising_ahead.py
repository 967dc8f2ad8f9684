"""Labelling tokenises the next window of pairs while the model computes the one before it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from conftest import sample_pairs
from telling import columns, new_cross_encoder

from te_trainer import labelling
from te_trainer.errors import DivergedError, InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import CrossEncoder, Encoder
from te_trainer.models.tokens import Tokens


@pytest.fixture(scope="module")
def cross_encoder(start: str) -> CrossEncoder:
    return new_cross_encoder(start)


class Tokenising:
    """Stands for `tokenise` in labelling, with windows and parts of them that are small."""

    WINDOW, PART = 8, 4

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
        self.pairs = sample_pairs(pairs)
        self.rows = 0  # that were tokenised
        self.threads: set[threading.Thread] = set()
        self._tokenise = labelling.tokenise
        monkeypatch.setattr(labelling, "WINDOW", self.WINDOW)
        monkeypatch.setattr(labelling, "PART", self.PART)
        monkeypatch.setattr(labelling, "tokenise", self)

    def __call__(self, *args: Any) -> Tokens:
        self.threads.add(threading.current_thread())
        self.before(self.rows)
        found = self._tokenise(*args)
        self.rows += len(found)
        return found

    def before(self, row: int) -> None:
        """Called before the part that begins at a row."""

    def score(self, encoder: Encoder, progress: Callable[[float], None] | None = None) -> np.ndarray:
        return score_pairs(encoder, columns(self.pairs), batch_tokens=64, progress=progress)


def test_a_window_is_tokenised_while_the_one_before_it_is_computed(
    monkeypatch: pytest.MonkeyPatch, cross_encoder: CrossEncoder
) -> None:
    begun = threading.Event()

    class Begins(Tokenising):
        def before(self, row: int) -> None:
            if row == self.WINDOW:
                begun.set()

    def wait(fraction: float) -> None:
        assert begun.wait(20), "the second window is not begun before the first one is computed"

    expected = score_pairs(cross_encoder, columns(sample_pairs(20)), batch_tokens=64)
    found = Begins(monkeypatch, 20).score(cross_encoder, wait)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_two_windows_of_tokens_lie_in_memory_and_no_more(
    monkeypatch: pytest.MonkeyPatch, cross_encoder: CrossEncoder
) -> None:
    alive: list[int] = []
    plain = Tokens.concatenate

    def concatenate(parts: Sequence[Tokens]) -> Tokens:
        if threading.current_thread() is threading.main_thread():
            alive.append(sum(len(found) for found in gc.get_objects() if isinstance(found, Tokens)))
        return plain(parts)

    monkeypatch.setattr(Tokens, "concatenate", concatenate)
    tokenising = Tokenising(monkeypatch, 60)
    tokenising.score(cross_encoder)
    assert tokenising.rows == 60
    # where the parts of a window are put together, the window before it is gone, and the next one has not begun
    assert alive == [8, 8, 8, 8, 8, 8, 8, 4]
    assert len(tokenising.threads) == 1


def test_an_error_in_tokenising_is_the_callers(monkeypatch: pytest.MonkeyPatch, cross_encoder: CrossEncoder) -> None:
    class Failing(Tokenising):
        def before(self, row: int) -> None:
            if row == 2 * self.WINDOW:
                raise InputError("row 17 is broken")

    tokenising = Failing(monkeypatch, 60)
    with pytest.raises(InputError, match="row 17 is broken"):
        tokenising.score(cross_encoder)
    # of the parts of the broken window, one may have begun before its error was seen
    assert tokenising.rows <= 2 * tokenising.WINDOW + tokenising.PART
    assert not any(thread.is_alive() for thread in tokenising.threads)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DivergedError])
def test_a_labelling_that_breaks_off_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, cross_encoder: CrossEncoder, error: type[BaseException]
) -> None:
    class Slow(Tokenising):
        WINDOW = 200

        def before(self, row: int) -> None:
            if row >= self.WINDOW:
                time.sleep(0.05)

    def fail(fraction: float) -> None:
        raise error

    tokenising = Slow(monkeypatch, 400)
    with pytest.raises(error):
        tokenising.score(cross_encoder, fail)
    assert tokenising.threads
    assert not any(thread.is_alive() for thread in tokenising.threads)
    assert tokenising.rows < 400
