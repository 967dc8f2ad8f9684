"""What a run found, for people: the closing table, `report.md`, `curves.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from te_trainer.agreement import MEASURES
from te_trainer.config.schema import DistillationConfig
from te_trainer.run_folder import PARTIAL, write_text

ENSEMBLE = {
    "mean": "The ensemble's predictions are the mean of all models'.",
    "weighted": "The ensemble's predictions are the mean of all models', by their weights.",
    "rank": "The ensemble ranks by the mean of all models' ranks.",
}
COLOURS = {"bi-encoder": "tab:blue", "cross-encoder": "tab:orange"}


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The closing table: the start, each cycle, the best; dev and each test set; both encoders; all times 100.

    Returns:
        the header, and rows of the same length.
    """
    names = _names(results)
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
        cells += [_percent(scores.get("dev"))] * with_dev
        cells += [_percent(scores.get("test", {}).get(task)) for task in tasks]
        body.append(cells)
    return header, body


def markdown(header: list[str], body: list[list[str]]) -> str:
    """A table of strings in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *body))


def remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of the table should not overlook."""
    found = []
    for name in _names(results):
        before = results["start"][name]["bi-encoder"].get("dev")
        for kind, entry in results["final"][name].items():
            if before is not None and entry["dev"] < before:
                found.append(
                    f"{name}: the {kind} that was kept scores lower on dev ({_percent(entry['dev'])}) than the start "
                    f"({_percent(before)}); distillation did not improve it."
                )
    return found


def print_table(results: dict[str, Any], metric: str, console: Console | None = None) -> None:
    """Print the closing table."""
    show(*rows(results), metric, remarks(results), console)


def show(
    header: list[str], body: list[list[str]], metric: str, lines: Sequence[str] = (), console: Console | None = None
) -> None:
    """Print a table of scores, and lines below it; what is kept stands out."""
    table = Table(title=f"{metric} x 100", title_justify="left")
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number < header.index("encoder") + 1 else "right", no_wrap=True)
    for cells in body:
        table.add_row(*cells, style="bold" if any("kept" in cell for cell in cells) else None)
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=400, file=console.file)
    console.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False)


def write_report(
    root: Path, results: dict[str, Any], distillation: DistillationConfig, pool: list[str], metric: str
) -> None:
    """Write `curves.png` and `report.md` into the output folder."""
    _curves(root / "curves.png", results, metric)
    header, body = rows(results)
    seconds = results["seconds"]
    environment = results["environment"]
    lines = [
        "# Trans-Encoder run",
        "",
        f"{metric} x 100. {what_chose(results, distillation)}",
        "",
        *([ENSEMBLE[distillation.combine] + "\n"] if "ensemble" in results["final"] else []),
        markdown(header, body),
        "",
        *[line + "\n" for line in remarks(results)],
        "![Scores by cycle](curves.png)",
        "",
        *_agreement(results),
        "## Pool",
        "",
        *[f"- {line.removeprefix('pool: ')}" for line in pool],
        "",
        "## Models",
        "",
        *[
            f"- {name}, {kind} of cycle {entry['cycle']}: `{Path(entry['path']).relative_to(root.absolute())}`"
            for name in _names(results)
            for kind, entry in results["final"][name].items()
        ],
        "",
        "## Time",
        "",
        "| stage | seconds |",
        "| --- | ---: |",
        *[f"| {stage} | {value:.1f} |" for stage, value in seconds.items()],
        "",
        f"On {environment['device']}, {environment['processes']} process(es), {environment['precision']}.",
        "",
    ]
    write_text(root / "report.md", "\n".join(lines))


def _names(results: dict[str, Any]) -> list[str]:
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
    reported = any("dev" in results["start"][name]["bi-encoder"] for name in _names(results))
    return (
        f"No gold score chose anything in this run, so the distillation was unsupervised: {kept}. "
        + "Gold scores of the dev set are reported only. " * reported
        + "How the starting checkpoints were trained is another matter."
    )


def _agreement(results: dict[str, Any]) -> list[str]:
    """The section on agreement, where it chose the cycles."""
    if "agreement" not in results:
        return []
    entries = [(name, entry) for name, found in results["agreement"].items() for entry in found]
    columns = [key for key in MEASURES if any(key in entry for _, entry in entries)]
    return [
        "## Agreement",
        "",
        "Spearman x 100 of scores of the pool: of an encoder and the labels that the first cycle learnt from "
        "(cross-first, bi-first: these chose), of the two encoders of a cycle (cross-bi), or of one and its like of "
        "the cycle before (cross-cross, bi-bi; in cycle 1 the start).",
        "",
        "| model | cycle | " + " | ".join(columns) + " |",
        "| --- " + "| ---: " * (1 + len(columns)) + "|",
        *[
            f"| {name} | {entry['cycle']} | " + " | ".join(_percent(entry.get(key)) for key in columns) + " |"
            for name, entry in entries
        ],
        "",
    ]


def _curves(path: Path, results: dict[str, Any], metric: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    names = _names(results)
    for number, name in enumerate(names):
        for kind, colour in COLOURS.items():
            for line, part in (("-", "dev"), ("--", "test")):
                points = [(0, _score(results["start"][name].get(kind, {}), part))]
                points += [(entry["cycle"], _score(entry[name].get(kind, {}), part)) for entry in results["cycles"]]
                drawn = [(cycle, 100 * value) for cycle, value in points if value is not None]
                if drawn:
                    label = " ".join([name] * (len(names) > 1) + [kind, part])
                    axes.plot(*zip(*drawn, strict=True), line, marker="os^v"[number % 4], color=colour, label=label)
    axes.set_xlabel("cycle (0: start)")
    axes.set_ylabel(f"{metric} x 100")
    axes.set_xticks(range(len(results["cycles"]) + 1))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    partial = path.with_name(PARTIAL + path.name)
    figure.savefig(partial, dpi=150, format="png")
    pyplot.close(figure)
    partial.replace(path)


def _score(scores: dict[str, Any], part: str) -> float | None:
    return scores.get("dev") if part == "dev" else scores.get("test", {}).get("avg")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _title(task: str) -> str:
    return {"avg": "avg."}.get(task, task)
