"""The closing table, on a terminal or in Markdown, and what is said with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from te_trainer.config.schema import DistillationConfig
from te_trainer.distil.selection import MEASURES
from te_trainer.escaping import markdown_cell, printable
from te_trainer.report.labels_table import TITLE, has_scores, label_rows
from te_trainer.runs.truncation import describe_run_truncation

ENSEMBLE = {
    "mean": "The ensemble's predictions are the mean of all models'.",
    "weighted": "The ensemble's predictions are the mean of all models', by their weights.",
    "rank": "The ensemble ranks by the mean of all models' ranks.",
}
AGREEMENT = (
    "Spearman x 100 of scores of the pool: of an encoder and the labels that the first cycle learnt from (cross-first, "
    "bi-first: these chose), of the two encoders of a cycle (cross-bi), or of one and its like of the cycle before "
    "(cross-cross, bi-bi; in cycle 1 the start)."
)


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The closing table: the start, each cycle, the best; dev and each test set; both encoders; all times 100.

    Returns:
        the header, and rows of the same length.
    """
    names = model_names(results)
    found: list[tuple[str, str, str, dict[str, Any]]] = []
    for name in names:
        found.append((name, "start", "bi-encoder", results["start"][name]["bi-encoder"]))
        for entry in results["cycles"]:
            found += [(name, f"cycle {entry['cycle']}", kind, scores) for kind, scores in entry[name].items()]
        final = results["final"][name]
        found += [(name, f"kept: cycle {entry['cycle']}", kind, entry) for kind, entry in final.items()]
    for when, part in (("start", "start"), ("kept", "final")):
        found += [("ensemble", when, kind, scores) for kind, scores in results[part].get("ensemble", {}).items()]
    return lay_out(found, len(names) > 1)


def lay_out(found: list[tuple[str, str, str, dict[str, Any]]], with_model: bool) -> tuple[list[str], list[list[str]]]:
    """Scores as a table of strings: dev and each test set, times 100.

    Args:
        found: model, when, kind of encoder, scores.
        with_model: whether the model has a column.

    Returns:
        the header, and rows of the same length.
    """
    with_dev = any("dev" in scores for *_, scores in found)
    tasks = next((list(scores["test"]) for *_, scores in found if "test" in scores), [])
    header = ["model"] * with_model + ["", "encoder"] + ["dev"] * with_dev + [_title(task) for task in tasks]
    body = []
    for name, when, kind, scores in found:
        cells = [name] * with_model + [when, kind]
        cells += [percent(scores.get("dev"))] * with_dev
        cells += [percent(scores.get("test", {}).get(task)) for task in tasks]
        body.append(cells)
    return header, body


def markdown(header: list[str], body: list[list[str]]) -> str:
    """A table of strings in Markdown."""
    lines = [list(map(markdown_cell, cells)) for cells in (header, *body)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], ["---"] * len(header), *lines[1:]))


def remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of the table should not overlook."""
    found = []
    for name in model_names(results):
        before = results["start"][name]["bi-encoder"].get("dev")
        for kind, entry in results["final"][name].items():
            if before is not None and entry["dev"] < before:
                found.append(
                    f"{name}: the {kind} that was kept scores lower on dev ({percent(entry['dev'])}) than the start "
                    f"({percent(before)}); distillation did not improve it."
                )
    return found + describe_run_truncation(results.get("truncation", {}))


def print_table(results: dict[str, Any], metric: str, console: Console | None = None) -> None:
    """Print the closing table: scores, or what is known without any."""
    if has_scores(results):
        show(*rows(results), metric, remarks(results), console)
    else:
        show(*(label_rows(results) or rows(results)), None, remarks(results), console)


def show(
    header: list[str],
    body: list[list[str]],
    metric: str | None,
    lines: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a table of scores (of labels, where there is no metric), and lines below it; what is kept stands out."""
    table = Table(title=TITLE if metric is None else f"{metric} x 100", title_justify="left")
    for number, title in enumerate(header):
        table.add_column(
            Text(printable(title)), justify="left" if number < header.index("encoder") + 1 else "right", no_wrap=True
        )
    for cells in body:
        kept = cells[header.index("encoder") - 1].startswith("kept")
        table.add_row(*(Text(printable(cell)) for cell in cells), style="bold" if kept else None)
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=400, file=console.file)
    console.print(table)
    for line in lines:
        console.print(printable(line), highlight=False, markup=False, emoji=False)


def model_names(results: dict[str, Any]) -> list[str]:
    """The PLMs of a run."""
    return [name for name in results["start"] if name != "ensemble"]


def what_chose(results: dict[str, Any], distillation: DistillationConfig) -> str:
    """Which gold scores were used for what; a run may call itself unsupervised only where none of them chose."""
    if distillation.selection == "dev":
        return "Gold scores of the dev set chose checkpoints and cycles."
    kept = (
        "the last cycle is kept"
        if distillation.selection == "last"
        else "the cycle is kept whose encoders agree best on the pool"
    )
    reported = any("dev" in results["start"][name]["bi-encoder"] for name in model_names(results))
    return (
        f"No gold score chose anything in this run, so the distillation was unsupervised: {kept}. "
        + "Gold scores of the dev set are reported only. " * reported
        + "How the starting checkpoints were trained is another matter."
    )


def overlap_lines(results: dict[str, Any]) -> list[str]:
    """How many pairs of the dev set and of each test set are in the pool, a line each; none where nobody counted."""
    found = results.get("overlap", {})
    entries = [("dev", found["dev"])] if "dev" in found else []
    entries += [("test", entry) for entry in found.get("test", {}).values()]
    return [
        f"{role} set {entry['name']}: {entry['in_pool']:,} of its {entry['pairs']:,} pairs are in the pool, in either "
        "order" + (", without their gold scores" if entry["in_pool"] else "")
        for role, entry in entries
    ]


def agreement_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """How well encoders agree on the pool, times 100, cycle by cycle; None where it did not choose.

    Returns:
        the header, and rows of the same length.
    """
    if "agreement" not in results:
        return None
    entries = [(name, entry) for name, found in results["agreement"].items() for entry in found]
    columns = [key for key in MEASURES if any(key in entry for _, entry in entries)]
    body = [[name, str(entry["cycle"]), *(percent(entry.get(key)) for key in columns)] for name, entry in entries]
    return ["model", "cycle", *columns], body


def percent(value: float | None) -> str:
    """A fraction times 100; nothing for None."""
    return "" if value is None else f"{100 * value:.2f}"


def _title(task: str) -> str:
    # a test set may be called as the column of the dev set is
    return {"avg": "avg.", "dev": "dev (test)"}.get(task, task)
