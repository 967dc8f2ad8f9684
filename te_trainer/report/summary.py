"""`report.md` and `curves.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from te_trainer.config.schema import DistillationConfig
from te_trainer.escaping import markdown_code, markdown_text, printable
from te_trainer.files.atomic import atomic_file, write_text
from te_trainer.report.labels_table import EXPLANATION, has_scores, label_rows, write_label_curves
from te_trainer.report.tables import (
    AGREEMENT,
    ENSEMBLE,
    agreement_table,
    markdown,
    model_names,
    overlap_lines,
    remarks,
    rows,
    what_chose,
)

COLOURS = {"bi-encoder": "tab:blue", "cross-encoder": "tab:orange"}


def write_report(
    root: Path, results: dict[str, Any], distillation: DistillationConfig, pool: list[str], metric: str
) -> None:
    """Write `curves.png` and `report.md` into the output folder."""
    scored = has_scores(results)
    if scored:
        _curves(root / "curves.png", results, metric)
    else:
        write_label_curves(root / "curves.png", results)
    header, body = rows(results) if scored else label_rows(results) or rows(results)
    seconds = results["seconds"]
    environment = results["environment"]
    lines = [
        "# Trans-Encoder run",
        "",
        f"{metric + ' x 100' if scored else 'There are no gold scores'}. {what_chose(results, distillation)}",
        "",
        *([ENSEMBLE[distillation.combine] + "\n"] if "ensemble" in results["final"] else []),
        markdown(header, body),
        "",
        *([] if scored else [EXPLANATION + "\n"]),
        *[markdown_text(line) + "\n" for line in remarks(results)],
        f"![{'Scores' if scored else 'Labels'} by cycle](curves.png)",
        "",
        *_agreement(results),
        "## Pool",
        "",
        *[f"- {markdown_text(line.removeprefix('pool: '))}" for line in pool],
        *[f"- {markdown_text(line)}" for line in overlap_lines(results)],
        "",
        "## Models",
        "",
        *[
            f"- {markdown_text(name)}, {kind} of cycle {entry['cycle']}: {markdown_code(f'{name}/{kind}')}"
            for name in model_names(results)
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


def _curves(path: Path, results: dict[str, Any], metric: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    names = model_names(results)
    for number, name in enumerate(names):
        for kind, colour in COLOURS.items():
            for line, part in (("-", "dev"), ("--", "test")):
                points = [(0, score_of(results["start"][name].get(kind, {}), part))]
                points += [(entry["cycle"], score_of(entry[name].get(kind, {}), part)) for entry in results["cycles"]]
                drawn = [(cycle, 100 * value) for cycle, value in points if value is not None]
                if drawn:
                    # a label that begins with an underscore is left out, and dollar signs begin a formula
                    label = f"{kind} {part}" + f", {printable(name)}".replace("$", r"\$") * (len(names) > 1)
                    axes.plot(*zip(*drawn, strict=True), line, marker="os^v"[number % 4], color=colour, label=label)
    axes.set_xlabel("cycle (0: start)")
    axes.set_ylabel(f"{metric} x 100")
    axes.set_xticks(range(len(results["cycles"]) + 1))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
    pyplot.close(figure)


def _agreement(results: dict[str, Any]) -> list[str]:
    """The section on agreement, where it chose the cycles."""
    table = agreement_table(results)
    return [] if table is None else ["## Agreement", "", AGREEMENT, "", markdown(*table), ""]


def score_of(scores: dict[str, Any], part: str) -> float | None:
    """An encoder's dev score, or its average over the test sets."""
    return scores.get("dev") if part == "dev" else scores.get("test", {}).get("avg")
