"""What a run knows of its encoders without gold scores: their labels, and what they made of those they learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from te_trainer.files.atomic import PARTIAL

COLOURS = {"bi-encoder": "tab:blue", "cross-encoder": "tab:orange"}
# What each measure is multiplied by, and the title of its axis.
CURVES = {"std": (1, "standard deviation of labels"), "agreement": (100, "agreement with the labels learnt x 100")}
TITLE = "labels of the pool (there are no gold scores)"
EXPLANATION = (
    "Mean, standard deviation and number of distinct values are those of the labels that an encoder gave to the pool. "
    "Its agreement is Spearman's correlation x 100 of these labels and those that it learnt from: near 100, it learnt "
    "nothing else. What stands empty is not known: the last bi-encoder labels the pool only where "
    "distillation.selection is agreement. None of this says how good an encoder is."
)


def has_scores(results: dict[str, Any]) -> bool:
    """Whether anything was scored against gold."""
    found = [encoders for _, _, encoders in _encoders(results["start"], results["cycles"])]
    return any("dev" in scores or "test" in scores for encoders in found for scores in encoders.values())


def label_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """What is known of each encoder, as a table; None where nobody looked.

    Returns:
        the header, and rows of the same length.
    """
    if "labels" not in results:
        return None
    names = [name for name in results["start"] if name != "ensemble"]
    header = ["model"] * (len(names) > 1) + [
        "",
        "encoder",
        "mean",
        "std. dev.",
        "distinct",
        "agreement",
        "steps",
        "loss",
    ]
    body = []
    for name in names:
        for each, cycle, encoders in _encoders(results["labels"]["start"], results["labels"]["cycles"]):
            for kind, entry in encoders.items() if each == name else ():
                kept = results["final"][name].get(kind, {}).get("cycle") == cycle
                when = f"{'kept: ' * kept}cycle {cycle}" if cycle else "start"
                agreement = entry.get("agreement")
                body.append(
                    [name] * (len(names) > 1)
                    + [when, kind]
                    + ["" if entry.get(key) is None else f"{entry[key]:.3f}" for key in ("mean", "std")]
                    + ["" if entry.get("distinct") is None else f"{entry['distinct']:,}"]
                    + ["" if agreement is None else f"{100 * agreement:.2f}"]
                    + ["" if entry.get("steps") is None else f"{entry['steps']:,}"]
                    + ["" if entry.get("loss") is None else f"{entry['loss']:.4f}"]
                )
    return header, body


def write_label_curves(path: Path, results: dict[str, Any]) -> None:
    """Draw the standard deviation of each encoder's labels, and their agreement with those it learnt, by cycle."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = {key: lines for key in CURVES if (lines := _curves(results, key))}
    figure, row = pyplot.subplots(
        1, max(1, len(known)), figsize=(4.8 * max(1, len(known)), 4), layout="constrained", squeeze=False
    )
    for axes, (key, lines) in zip(row[0], known.items(), strict=False):
        scale, title = CURVES[key]
        for label, marker, colour, points in lines:
            drawn = [(cycle, scale * value) for cycle, value in points]
            # dollar signs begin a formula
            axes.plot(*zip(*drawn, strict=True), marker=marker, color=colour, label=label.replace("$", r"\$"))
        axes.set_xlabel("cycle (0: start)")
        axes.set_ylabel(title)
        axes.set_xticks(range(len(results["cycles"]) + 1))
        axes.grid(alpha=0.3)
        axes.legend()
    partial = path.with_name(PARTIAL + path.name)
    figure.savefig(partial, dpi=150, format="png")
    pyplot.close(figure)
    partial.replace(path)


def _curves(results: dict[str, Any], key: str) -> list[tuple[str, str, str, list[tuple[int, float]]]]:
    """Label, marker, colour and points of every line of one measure that has points."""
    labels = results.get("labels", {"start": {}, "cycles": []})
    names = [name for name in results["start"] if name != "ensemble"]
    lines = []
    for number, name in enumerate(names):
        for kind, colour in COLOURS.items():
            points = [
                (cycle, encoders[kind][key])
                for each, cycle, encoders in _encoders(labels["start"], labels["cycles"])
                if each == name and encoders.get(kind, {}).get(key) is not None
            ]
            if points:
                lines.append((f"{kind}, {name}" if len(names) > 1 else kind, "os^v"[number % 4], colour, points))
    return lines


def _encoders(start: dict[str, Any], cycles: list[dict[str, Any]]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Of the start (cycle 0) and of each cycle: the PLM, and an entry for each of its encoders."""
    for cycle, entry in [(0, start), *((each["cycle"], each) for each in cycles)]:
        for name, encoders in entry.items():
            if name not in {"cycle", "ensemble"}:
                yield name, cycle, encoders
