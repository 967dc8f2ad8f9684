"""Tables of an evaluation as the paper prints them, for a terminal, in Markdown and in LaTeX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from te_trainer.escaping import latex_text, markdown_cell, printable
from te_trainer.files.atomic import write_text

TITLES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
}
FAMILIES = {"sts": ("spearman", "pearson"), "binary": ("roc_auc", "average_precision")}


@dataclass(frozen=True)
class Sheet:
    """A table of strings; the first column says what a row is."""

    title: str
    header: list[str]
    rows: list[list[str]]


def sheets(results: dict[str, Any]) -> list[Sheet]:
    """Every table of an evaluation: of each family, both metrics with their intervals, and the differences."""
    found = []
    for family, metrics in FAMILIES.items():
        columns = [column for column in results["columns"] if column["family"] == family]
        if columns:
            for metric in metrics:
                found += _scores(results, family, columns, metric, main=metric == metrics[0])
            found += _differences(results, family, columns, metrics[0])
    return found


def show(results: dict[str, Any], console: Console | None = None) -> None:
    """Print all tables."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=400, file=console.file)
    for sheet in sheets(results):
        table = Table(title=sheet.title, title_justify="left")
        for number, title in enumerate(sheet.header):
            table.add_column(Text(printable(title)), justify="right" if number else "left", no_wrap=True)
        for cells in sheet.rows:
            table.add_row(*(Text(printable(cell)) for cell in cells), style="dim" if _is_papers(cells) else None)
        console.print(table)


def write(root: Path, results: dict[str, Any]) -> None:
    """Write `table.md` and `table.tex`."""
    found = sheets(results)
    write_text(root / "table.md", "\n".join(_markdown(sheet) for sheet in found))
    note = "% needs \\usepackage{booktabs}\n"
    write_text(root / "table.tex", note + "\n".join(_latex(sheet) for sheet in found))


def _scores(
    results: dict[str, Any], family: str, columns: list[dict[str, Any]], metric: str, main: bool
) -> list[Sheet]:
    values, intervals = [], []
    for model in results["models"]:
        scored = [_scored(model, results, column) for column in columns]
        average = model["average"][family]
        cells = [_value(entry, metric) for entry in scored] + [average[metric]]
        values.append([model["name"], *map(_percent, cells)])
        ranges = [entry["intervals"][metric] for entry in [*scored, average]]
        intervals.append([model["name"], *map(_range, ranges)])
        if main and "paper" in model:
            values += _papers(model["paper"], columns)
    pairs = ["pairs", *(f"{column['pairs']:,}" for column in columns), ""]
    title = f"{TITLES[metric]} x 100"
    covered = f"{100 * results['bootstrap']['interval']:.0f} % intervals (bootstrap over pairs)"
    return [
        _sheet(title, columns, [pairs, *values]),
        _sheet(f"{title}, {covered}", columns, intervals),
    ]


def _differences(results: dict[str, Any], family: str, columns: list[dict[str, Any]], metric: str) -> list[Sheet]:
    rows = []
    for entry in results["differences"]:
        found = [entry["tasks"][column["task"]] for column in columns] + [entry["average"][family]]
        cells = [f"{100 * cell['difference']:+.2f} {_range(cell['interval'])}" for cell in found]
        rows.append([" - ".join(entry["models"]), *cells])
    title = f"{TITLES[metric]} x 100, differences (paired bootstrap)"
    return [_sheet(title, columns, rows)] if rows else []


def _papers(row: dict[str, Any], columns: list[dict[str, Any]]) -> list[list[str]]:
    """The paper's figures, where it has some of these sets; an average where it has all."""
    found = [row["scores"].get(column["task"]) for column in columns]
    known = [value for value in found if value is not None]
    if not known:
        return []
    average = sum(known) / len(known) if len(known) == len(found) else None
    return [[row["title"], *map(_percent, found), _percent(average)]]


def _scored(model: dict[str, Any], results: dict[str, Any], column: dict[str, Any]) -> dict[str, Any]:
    """A model's entry for a set."""
    task = model["tasks"][results["columns"].index(column)]
    return next(iter(task["scores"].values()))[0]


def _value(entry: dict[str, Any], metric: str) -> float:
    return entry["similarity_ap" if metric == "average_precision" else metric]


def _sheet(title: str, columns: list[dict[str, Any]], rows: list[list[str]]) -> Sheet:
    """One set needs no average."""
    if len(columns) == 1:
        rows = [row[:-1] for row in rows]
    return Sheet(title, ["", *(column["title"] for column in columns), *["avg."] * (len(columns) > 1)], rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _range(bounds: list[float]) -> str:
    return f"[{100 * bounds[0]:.2f}, {100 * bounds[1]:.2f}]"


def _is_papers(cells: list[str]) -> bool:
    return cells[0].startswith("paper: ")


def _markdown(sheet: Sheet) -> str:
    marks = ["---", *["---:"] * (len(sheet.header) - 1)]
    # numbers and their intervals stay readable in the file
    rows = [[markdown_cell(cells[0]), *cells[1:]] for cells in sheet.rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in (map(markdown_cell, sheet.header), marks, *rows)]
    return "\n".join([f"## {sheet.title}", "", *lines, ""])


def _latex(sheet: Sheet) -> str:
    rows = [" & ".join(map(latex_text, cells)) + r" \\" for cells in (sheet.header, *sheet.rows)]
    columns = "l" + "r" * (len(sheet.header) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
    return "\n".join([f"% {sheet.title}", *lines, r"\end{tabular}", ""])
