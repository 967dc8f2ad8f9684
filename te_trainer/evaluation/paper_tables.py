"""Tables of an evaluation as the paper prints them, and in words what they say of each model against the first.

They are printed on the terminal and written into `table.md` and `table.tex`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from te_trainer.escaping import markdown_text, printable
from te_trainer.evaluation.results import MTEB_KEYS
from te_trainer.files.atomic import write_text
from te_trainer.metrics import METRIC_TITLES, TASK_METRICS
from te_trainer.report.table_formats import Table, percent
from te_trainer.report.verdicts import verdict
from te_trainer.runs.layout import RunLayout


def show_tables(results: dict[str, Any], console: Console | None = None) -> None:
    """Print all tables, and what they say of each model against the first."""
    for table in evaluation_tables(results):
        table.show(console)
    for sentence in verdicts(results):
        print(printable(sentence), file=console.file if console else None)


def write_tables(root: Path, results: dict[str, Any]) -> None:
    """Write `table.md` and `table.tex`."""
    layout, tables = RunLayout(root), evaluation_tables(results)
    sections = [f"## {table.title}\n\n{table.markdown()}\n" for table in tables]
    if sentences := verdicts(results):
        sections.append("## Verdict\n\n" + "\n".join(f"- {markdown_text(each)}" for each in sentences) + "\n")
    write_text(layout.markdown_table, "\n".join(sections))
    latex = "\n".join(table.latex() for table in tables)
    write_text(layout.latex_table, f"% needs \\usepackage{{booktabs}}\n{latex}")


def verdicts(results: dict[str, Any]) -> list[str]:
    """A sentence for each model but the first, and each family of sets: better or worse than the first, or unclear.

    `results` are those of `te_trainer.evaluation.results.collect`. Where a family has several sets, the difference is
    that of the averages.
    """
    first = results["models"][0]["name"]
    against_first = [entry for entry in results["differences"] if entry["models"][0] == first]
    sentences = []
    for entry in against_first:
        for family, metrics in TASK_METRICS.items():
            sets = [column for column in results["columns"] if column["family"] == family]
            if sets:
                where = sets[0]["title"] if len(sets) == 1 else f"the average of {len(sets)} sets"
                pairs = sum(column["different_pairs"] for column in sets)
                difference = entry["average"][family]
                higher = {
                    "difference": -difference["difference"],
                    "interval": [-bound for bound in reversed(difference["interval"])],
                }
                unit = f"{METRIC_TITLES[metrics[0].__name__]} × 100"
                sentences.append(verdict(entry["models"][1], first, where, unit, higher, pairs))
    return sentences


def evaluation_tables(results: dict[str, Any]) -> list[Table]:
    """Of each family of sets: both metrics, each with its intervals, and the differences between models."""
    tables = []
    for family, metrics in TASK_METRICS.items():
        columns = [index for index, column in enumerate(results["columns"]) if column["family"] == family]
        if columns:
            names = [metric.__name__ for metric in metrics]
            tables += _score_tables(results, family, columns, names[0], with_paper=True)
            tables += _score_tables(results, family, columns, names[1])
            tables += _differences(results, family, columns, names[0])
    return tables


def _score_tables(
    results: dict[str, Any], family: str, columns: list[int], metric: str, with_paper: bool = False
) -> list[Table]:
    """The table of a metric, if asked with the paper's figures below those of the same models, and its intervals."""
    sets = [results["columns"][index] for index in columns]
    key = MTEB_KEYS.get(metric, metric)
    values, intervals = [["pairs", *(f"{each['pairs']:,}" for each in sets), ""]], []
    dim = {}
    for model in results["models"]:
        scores = [next(iter(model["tasks"][index]["scores"].values()))[0] for index in columns]
        average = model["average"][family]
        values.append([model["name"], *(percent(each[key]) for each in scores), percent(average[metric])])
        intervals.append([model["name"], *(_range(each["intervals"][metric]) for each in [*scores, average])])
        paper = model.get("paper", {"scores": {}})
        known = [paper["scores"].get(each["task"]) for each in sets]
        present = [value for value in known if value is not None]
        if with_paper and present:
            mean = sum(present) / len(present) if len(present) == len(known) else None
            dim[len(values)] = "dim"
            values.append([paper["title"], *map(percent, [*known, mean])])
    title = f"{METRIC_TITLES[metric]} × 100"
    covered = f"{100 * results['bootstrap']['interval']:.0f} % intervals (bootstrap over pairs)"
    return [_table(sets, title, values, dim), _table(sets, f"{title}, {covered}", intervals)]


def _differences(results: dict[str, Any], family: str, columns: list[int], metric: str) -> list[Table]:
    sets = [results["columns"][index] for index in columns]
    rows = []
    for entry in results["differences"]:
        cells = [*(entry["tasks"][each["task"]] for each in sets), entry["average"][family]]
        texts = [f"{100 * cell['difference']:+z.2f} {_range(cell['interval'])}" for cell in cells]
        rows.append([" - ".join(entry["models"]), *texts])
    title = f"{METRIC_TITLES[metric]} × 100, differences (paired bootstrap)"
    return [_table(sets, title, rows)] if rows else []


def _table(
    sets: list[dict[str, Any]], title: str, rows: Sequence[list[str]], emphasis: dict[int, str] | None = None
) -> Table:
    """A table of sets and their average, which one set alone does not need."""
    columns = ["", *(each["title"] for each in sets), *["avg."] * (len(sets) > 1)]
    return Table(columns, [row[: len(columns)] for row in rows], title, emphasis=emphasis or {})


def _range(bounds: list[float]) -> str:
    return f"[{100 * bounds[0]:z.2f}, {100 * bounds[1]:z.2f}]"
