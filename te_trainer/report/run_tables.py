"""The tables of a run's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from te_trainer.distillation.selection import MEASURES
from te_trainer.escaping import printable
from te_trainer.metrics import METRIC_TITLES
from te_trainer.report.remarks import remarks
from te_trainer.report.run_results import encoders_by_cycle, has_scores, model_names
from te_trainer.report.table_formats import Table, percent
from te_trainer.runs.progress import format_duration
from te_trainer.runs.truncation import describe_contrastive_truncation

STAGE_TITLES = {
    "step0": "step 0: contrastive training",
    "mine": "mine pairs of sentences",
    "grow": "add random pairs",
    "label_bi": "label with bi-encoders",
    "train_cross": "train cross-encoders",
    "label_cross": "label with cross-encoders",
    "train_bi": "train bi-encoders",
    "evaluate": "score on gold sets",
    "health": "look at the encoders' health",
}


def print_contrastive_results(results: dict[str, Any], metric: str) -> None:
    """Print the scores of the encoder before and after contrastive training, or what is known without any."""
    table = contrastive_table(results, metric)
    if table is not None:
        table.show()
        return
    training = results["training"]
    facts = [f"{training['steps']:,} steps", f"{results['seconds']['train']:,.1f} seconds"]
    if training.get("loss") is not None:
        facts.append(f"last loss {training['loss']:.4f}")
    print(f"There are no gold scores (data.dev, data.test), so nothing was scored. Training: {', '.join(facts)}.")
    for note in describe_contrastive_truncation(results["truncation"]):
        print(printable(note))


def contrastive_table(results: dict[str, Any], metric: str) -> Table | None:
    """Scores of the encoder before and after contrastive training, times 100; None where there are none."""
    encoders = [(when, results[part]["bi-encoder"]) for when, part in (("start", "start"), ("kept", "final"))]
    if not any("dev" in scores or "test" in scores for _, scores in encoders):
        return None
    notes = describe_contrastive_truncation(results["truncation"])
    (_, start), (_, kept) = encoders
    if "dev" in start and kept["dev"] < start["dev"]:
        notes = ["The encoder scores lower on dev than the start: contrastive training did not improve it.", *notes]
    return _score_table([("", when, "bi-encoder", scores) for when, scores in encoders], metric, notes)


def result_table(results: dict[str, Any], metric: str) -> Table:
    """The closing table of a run: scores, or the encoders' health where there are no gold scores."""
    return score_table(results, metric) if has_scores(results) else health_table(results, remarks(results))


def score_table(results: dict[str, Any], metric: str) -> Table:
    """Scores of the start, of each cycle and of what was kept, for dev and each test set, times 100."""
    rows = []
    for name in model_names(results):
        rows.append((name, "start", "bi-encoder", results["start"][name]["bi-encoder"]))
        for entry in results["cycles"]:
            rows += [(name, f"cycle {entry['cycle']}", kind, scores) for kind, scores in entry[name].items()]
        final = results["final"][name]
        rows += [(name, f"kept: {cycle_title(scores['cycle'])}", kind, scores) for kind, scores in final.items()]
    for when, part in (("start", "start"), ("kept", "final")):
        rows += [("ensemble", when, kind, scores) for kind, scores in results[part].get("ensemble", {}).items()]
    return _score_table(rows, metric, remarks(results))


def _score_table(rows: list[tuple[str, str, str, dict[str, Any]]], metric: str, notes: Sequence[str]) -> Table:
    """A table of scores, from (model, when, kind, scores)."""
    with_dev = any("dev" in scores for *_, scores in rows)
    tasks = next((list(scores["test"]) for *_, scores in rows if "test" in scores), [])
    cells = []
    for name, when, kind, scores in rows:
        test = scores.get("test", {})
        numbers = [scores.get("dev")] * with_dev + [test.get(task) for task in tasks]
        cells.append([name, when, kind, *map(percent, numbers)])
    # a test set may be called as the column of the dev set is
    titles = [{"avg": "avg.", "dev": "dev (test)"}.get(task, task) for task in tasks]
    columns = ["", "encoder", *["dev"] * with_dev, *titles]
    return _encoder_table(columns, cells, f"{METRIC_TITLES[metric]} × 100", notes)


def health_table(results: dict[str, Any], notes: Sequence[str] = ()) -> Table:
    """Each encoder's health and its training."""
    formats: dict[str, tuple[float, str]] = {
        "agreement": (100, "{:z.2f}"),
        "start": (100, "{:z.2f}"),
        "std": (1, "{:.3f}"),
        "distinct": (1, "{:,}"),
        "spread": (1, "{:.2f}"),
        "orders": (100, "{:z.2f}"),
        "graded": (100, "{:.0f}"),
        "steps": (1, "{:,}"),
        "loss": (1, "{:.4f}"),
    }
    rows = []
    for name in model_names(results):
        for cycle, encoders in encoders_by_cycle(results["health"], name):
            for kind, entry in encoders.items():
                kept = results["final"][name].get(kind, {}).get("cycle") == cycle
                cells = [
                    shape.format(factor * entry[key]) if entry.get(key) is not None else ""
                    for key, (factor, shape) in formats.items()
                ]
                rows.append([name, f"{'kept: ' * kept}{cycle_title(cycle)}", kind, *cells])
    titles = {"start": "with start", "graded": "edits"}
    columns = ["", "encoder", *(titles.get(key, key) for key in formats)]
    return _encoder_table(columns, rows, "health (without gold)", notes)


def cycle_title(cycle: int) -> str:
    """A cycle as tables call it; 0 is the start."""
    return f"cycle {cycle}" if cycle else "start"


def _encoder_table(columns: list[str], rows: list[list[str]], title: str, notes: Sequence[str]) -> Table:
    """A table whose rows begin with model, when and kind; the model stands there only where there are several."""
    bold = {index: "bold" for index, row in enumerate(rows) if row[1].startswith("kept")}
    if len({row[0] for row in rows}) > 1:
        return Table(["model", *columns], rows, title, 3, bold, notes)
    return Table(columns, [row[1:] for row in rows], title, 2, bold, notes)


def agreement_table(results: dict[str, Any]) -> Table | None:
    """How well encoders agree on the pool, times 100, cycle by cycle; None where agreement did not choose."""
    if "agreement" not in results:
        return None
    entries = [(name, entry) for name, measures in results["agreement"].items() for entry in measures]
    columns = [key for key in MEASURES.values() if any(key in entry for _, entry in entries)]
    rows = [[name, str(entry["cycle"]), *(percent(entry.get(key)) for key in columns)] for name, entry in entries]
    return Table(["model", "cycle", *columns], rows)


def stage_table(results: dict[str, Any]) -> Table:
    """Time of each stage."""
    total = results["seconds"]["total"] or 1
    rows = [
        [STAGE_TITLES.get(stage, stage), format_duration(seconds, decimals=1), f"{100 * seconds / total:.0f} %"]
        for stage, seconds in results["seconds"].items()
    ]
    return Table(["stage", "time", "share"], rows, emphasis={len(rows) - 1: "bold"})
