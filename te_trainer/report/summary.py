"""`report.md` and `curves.png`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from te_trainer.config.schema import DistillationConfig
from te_trainer.escaping import markdown_code, markdown_text, printable
from te_trainer.files.atomic import atomic_file, write_text
from te_trainer.metrics import METRIC_TITLES
from te_trainer.report.drawing import import_matplotlib
from te_trainer.report.mined_pairs import mining_description, mining_table
from te_trainer.report.remarks import (
    AGREEMENT_DESCRIPTION,
    ENSEMBLE_DESCRIPTIONS,
    HEALTH_DESCRIPTION,
    overlap_lines,
    selection_note,
)
from te_trainer.report.run_results import encoders_by_cycle, has_scores, model_names, score_of
from te_trainer.report.run_tables import agreement_table, cycle_title, health_table, result_table, stage_table
from te_trainer.runs.layout import RunLayout

COLOURS = {"bi-encoder": "tab:blue", "cross-encoder": "tab:orange"}

Curve = tuple[list[tuple[int, float]], dict[str, str]]  # cycles (0: start) and values; how they are drawn


def write_report(
    root: Path, results: dict[str, Any], distillation: DistillationConfig, pool: list[str], metric: str
) -> None:
    """Write `report.md`, which shows `curves.png`, into the output folder; `pool` are lines that describe the pool."""
    scored = has_scores(results)
    table, agreement, mining = result_table(results, metric), agreement_table(results), mining_table(results)
    environment = results["environment"]
    unit = f"{table.title}." if scored else "There are no gold scores."
    encoders = [
        f"- {markdown_text(name)}, {kind} ({cycle_title(entry['cycle'])}): {markdown_code(f'{name}/{kind}')}"
        for name in model_names(results)
        for kind, entry in results["final"][name].items()
    ]
    paragraphs = [
        "# Trans-Encoder run",
        *map(markdown_text, table.notes),
        f"{unit} {selection_note(results, distillation)}",
        ENSEMBLE_DESCRIPTIONS[distillation.combine] if "ensemble" in results["final"] else "",
        table.markdown(),
        "" if scored else HEALTH_DESCRIPTION,
        f"![{'Scores' if scored else 'Health'} by cycle](curves.png)",
        *(["## Health", HEALTH_DESCRIPTION, health_table(results).markdown()] if scored else []),
        *([] if agreement is None else ["## Agreement", AGREEMENT_DESCRIPTION, agreement.markdown()]),
        "## Pool",
        "\n".join(f"- {markdown_text(line.removeprefix('pool: '))}" for line in [*pool, *overlap_lines(results)]),
        *([] if mining is None else ["## Mined pairs", mining_description(results), mining.markdown()]),
        "## Models",
        "\n".join(encoders),
        "## Time",
        stage_table(results).markdown(),
        f"On {environment['device']}, {environment['processes']} process(es), {environment['precision']}.",
    ]
    write_text(RunLayout(root).report, "\n\n".join(filter(None, paragraphs)) + "\n")


def write_curves(path: Path, results: dict[str, Any], metric: str) -> None:
    """Draw scores by cycle, or without gold scores the encoders' health, a panel without a point left out."""
    import_matplotlib()
    # pyplot would choose a screen for the whole process, which may be a notebook
    from matplotlib.figure import Figure

    names = model_names(results)
    panels: dict[str, list[Curve]] = {}
    if has_scores(results):
        dev = _curves(results, names, lambda scores: score_of(scores, "dev"), 100, " dev")
        test = _curves(results, names, lambda scores: score_of(scores, "test"), 100, " test", linestyle="--")
        panels = {f"{METRIC_TITLES[metric]} × 100": dev + test}
    else:
        std = _curves(results["health"], names, lambda entry: entry.get("std"))
        agreement = _curves(results["health"], names, lambda entry: entry.get("agreement"), 100)
        panels = {"standard deviation of scores": std, "agreement with the labels learnt × 100": agreement}
    panels = {title: curves for title, curves in panels.items() if curves} or {"": []}
    size = (6.4 if len(panels) == 1 else 4.8 * len(panels), 4)
    figure = Figure(figsize=size, layout="constrained")
    (row,) = figure.subplots(1, len(panels), squeeze=False)
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        for points, style in curves:
            axes.plot(*zip(*points, strict=True), **style)
        axes.set_xlabel("cycle (0: start)")
        axes.set_ylabel(title)
        axes.set_xticks(range(len(results["cycles"]) + 1))
        axes.grid(alpha=0.3)
        if curves:
            axes.legend()
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=150, format="png")


def _curves(
    source: dict[str, Any],
    names: list[str],
    value_of: Callable[[dict[str, Any]], float | None],
    factor: int = 1,
    suffix: str = "",
    **style: str,
) -> list[Curve]:
    """One for each encoder of which `value_of` knows a value in some cycle."""
    curves = []
    for index, name in enumerate(names):
        for kind, color in COLOURS.items():
            values = [(cycle, value_of(encoders.get(kind, {}))) for cycle, encoders in encoders_by_cycle(source, name)]
            if points := [(cycle, factor * value) for cycle, value in values if value is not None]:
                # a dollar sign would begin a formula
                label = (f"{kind}{suffix}" + f", {printable(name)}" * (len(names) > 1)).replace("$", r"\$")
                curves.append((points, {"label": label, "color": color, "marker": "os^v"[index % 4], **style}))
    return curves
