"""The two ways in which a run stops on purpose, each with one sentence for the person who started it, and the causes
of a library's exception."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file, row or key, and how to fix it; exit status 2."""


class MissingColumnError(InputError):
    """A source lacks a column that is wanted."""


class NoRowsError(InputError):
    """A source has too few rows with gold scores."""


class DivergedError(RuntimeError):
    """A loss or a score is NaN or infinite. The message names the step or the pair; exit status 1."""


@contextlib.contextmanager
def divergence_named(title: str) -> Iterator[None]:
    """Say what was done, and with which PLM, where scores in the block are NaN or infinite."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"{title}: {error}") from None


def causes(error: BaseException) -> list[BaseException]:
    """An exception and its causes, the outermost first; each once."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def first_line(error: BaseException) -> str:
    """What an error of another library says first; its type where it says nothing."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # what was looked at; the next line says what is wrong
        lines[0] += f" {lines[1].strip()}"
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
