"""How a table becomes text of a terminal, Markdown or LaTeX; `page.html` makes HTML of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from te_trainer.escaping import latex_text, markdown_cell, printable


@dataclass(frozen=True)
class Table:
    """Cells of text, under a header."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    text_columns: int = 1  # the first columns, which are aligned left and escaped; the others hold numbers
    # `bold` for what was kept, `dim` for the paper's figures, by the index of a row; terminals and HTML show it
    emphasis: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()  # sentences that stand below the table

    def show(self, console: Console | None = None) -> None:
        """Print the table and its notes."""
        console = console or Console()
        if not console.is_terminal:
            # a file has no width that would cut cells
            console = Console(width=400, file=console.file)
        table = RichTable(title=Text(printable(self.title)) if self.title else None, title_justify="left")
        for index, column in enumerate(self.columns):
            justify: Literal["left", "right"] = "left" if index < self.text_columns else "right"
            table.add_column(Text(printable(column)), justify=justify, no_wrap=True)
        for index, cells in enumerate(self.rows):
            table.add_row(*(Text(printable(cell)) for cell in cells), style=self.emphasis.get(index))
        console.print(table)
        for note in self.notes:
            console.print(printable(note), highlight=False, markup=False, emoji=False)

    def markdown(self) -> str:
        """The table in Markdown, without title and notes."""
        marks = ["---" if index < self.text_columns else "---:" for index in range(len(self.columns))]
        rows = [[*map(markdown_cell, row[: self.text_columns]), *row[self.text_columns :]] for row in self.rows]
        lines = [list(map(markdown_cell, self.columns)), marks, *rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def latex(self) -> str:
        """The table as a `tabular` of the package booktabs, its title as a comment."""
        header, *rows = (" & ".join(map(latex_text, cells)) + r" \\" for cells in (self.columns, *self.rows))
        alignment = "l" * self.text_columns + "r" * (len(self.columns) - self.text_columns)
        lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
        return "\n".join([f"% {self.title}", *lines, r"\end{tabular}", ""])


def percent(value: float | None) -> str:
    """A fraction times 100; nothing for None."""
    return "" if value is None else f"{100 * value:z.2f}"
