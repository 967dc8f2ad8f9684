"""Texts of users where they are shown: names and paths are text there, never markup."""

from __future__ import annotations

import re
import unicodedata

JOINERS = "\u200c\u200d"  # within words of some scripts, and in emoji
LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
}


def steers(character: str) -> bool:
    """Whether a character is none that is seen: of control or direction, a separator of lines, half of another one."""
    kind = unicodedata.category(character)
    return kind in {"Cc", "Cs", "Zl", "Zp"} or (kind == "Cf" and character not in JOINERS)


def printable(text: str) -> str:
    """A text with escapes in place of characters that steer a terminal, change direction, or end a line."""
    return "".join(
        character.encode("unicode_escape").decode() if steers(character) else character for character in text
    )


def markdown_cell(text: str) -> str:
    """A text as Markdown that shows it, in a cell of a table or within a line."""
    shown = re.sub(r"[\\`*\[\]<>|~$&#]", r"\\\g<0>", printable(text))
    # an underscore within a word marks nothing
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", shown)


def markdown_text(text: str) -> str:
    """A text as Markdown that shows it, in a sentence or a list, even at the beginning of a line."""
    # there these make a list or a heading
    return re.sub(r"^(\s*)([-+=]|\d+(?=[.)]))", _without_list, markdown_cell(text))


def markdown_code(text: str) -> str:
    """A text as a Markdown code span."""
    shown = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown[:1] == "`" or shown[-1:] == "`" else ""
    return f"{fence}{space}{shown}{space}{fence}"


def latex_text(text: str) -> str:
    """A text as LaTeX that shows it, in a cell of a table."""
    return "".join(LATEX.get(character, character) for character in printable(text))


def _without_list(match: re.Match[str]) -> str:
    space, mark = match.groups()
    return f"{space}\\{mark}" if not mark[0].isdigit() else f"{space}{mark}\\"
