"""The tables of a run's results, and the sentences that belong to them.

`results` is always the content of `results.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from te_trainer.config.defaults import LEAST_STEPS
from te_trainer.config.schema import DistillationConfig
from te_trainer.distillation.selection import MEASURES, TRUSTED_AGREEMENT
from te_trainer.escaping import printable
from te_trainer.metrics import METRIC_TITLES
from te_trainer.report.table_formats import Table, percent
from te_trainer.runs.progress import format_duration
from te_trainer.runs.truncation import describe_contrastive_truncation, describe_run_truncation

ENSEMBLE_DESCRIPTIONS = {
    "mean": "The ensemble's predictions are the mean of all models'.",
    "weighted": "The ensemble's predictions are the mean of all models', by their weights.",
    "rank": "The ensemble ranks by the mean of all models' ranks.",
}
AGREEMENT_DESCRIPTION = (
    "Spearman × 100 of scores of the pool. cross-first and bi-first compare an encoder with the labels that the first "
    "cycle learnt from; they chose the cycles. cross-bi compares the two encoders of a cycle. cross-cross and bi-bi "
    "compare an encoder with that of its kind of the cycle before; in cycle 1, bi-bi compares with the start."
)
HEALTH_DESCRIPTION = (
    "Health is measured on some pairs of the pool, without gold; where distillation.held_out is above 0, no training "
    "sees them. An encoder's agreement is Spearman's correlation × 100 of its scores with the labels that it learnt, "
    "“with start” that with the labels that the first cycle learnt. Spread is the standard deviation of the scores "
    "beside that of these labels. Orders is Spearman's correlation × 100 of the scores of (s1, s2) and (s2, s1). Edits "
    "says how often a sentence is found less similar to itself the more of it was edited, and least to another one; "
    "scores that say nothing reach 50. None of this says how good an encoder is; low values say that it has not "
    "learnt."
)
STAGE_TITLES = {
    "step0": "step 0: contrastive training",
    "mine": "mine pairs of sentences",
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
    training = results.get("training", {})
    facts = [f"{results['seconds']['train']:,.1f} seconds"]
    if training.get("steps") is not None:
        facts.insert(0, f"{training['steps']:,} steps")
    if training.get("loss") is not None:
        facts.append(f"last loss {training['loss']:.4f}")
    print(f"There are no gold scores (data.dev, data.test), so nothing was scored. Training: {', '.join(facts)}.")
    for note in describe_contrastive_truncation(results.get("truncation", {})):
        print(printable(note))


def contrastive_table(results: dict[str, Any], metric: str) -> Table | None:
    """Scores of the encoder before and after contrastive training, times 100; None where there are none."""
    encoders = [(when, results[part]["bi-encoder"]) for when, part in (("start", "start"), ("kept", "final"))]
    if not any("dev" in scores or "test" in scores for _, scores in encoders):
        return None
    notes = describe_contrastive_truncation(results.get("truncation", {}))
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
    columns = ["", "encoder", "agreement", "with start", "std", "spread", "orders", "edits", "steps", "loss"]
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
    columns = [key for key in MEASURES if any(key in entry for _, entry in entries)]
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


def remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of the results should not overlook."""
    lines = list(_failures(results))
    for name in model_names(results):
        start = results["start"][name]["bi-encoder"].get("dev")
        if start is None:
            lines.append(_verdict(results, name))
            continue
        for kind, scores in results["final"][name].items():
            if scores["cycle"] == 0:
                lines.append(
                    f"{name}: the {kind} that was kept is the start, as it came; no cycle's scores higher on dev."
                )
            elif scores["dev"] < start:
                lines.append(
                    f"{name}: the {kind} that was kept scores lower on dev ({percent(scores['dev'])}) than the start "
                    f"({percent(start)}); distillation did not improve it."
                )
    return lines + describe_run_truncation(results.get("truncation", {}))


def _failures(results: dict[str, Any]) -> Iterator[str]:
    """A line for the students of a PLM and a kind that have not learnt: why, what became of them, and what to do."""
    failed = results.get("not_learnt", [])
    for name, kind in dict.fromkeys((entry["name"], entry["kind"]) for entry in failed):
        mine = [entry for entry in failed if (entry["name"], entry["kind"]) == (name, kind)]
        kept = results["final"].get(name, {}).get(kind, {}).get("cycle")
        outcomes = []
        if any(entry["stopped"] for entry in mine):
            outcomes.append("it taught none and the cycles ended there")
        elif any(entry["taught"] for entry in mine):
            outcomes.append("it taught all the same")
        if kept in [entry["cycle"] for entry in mine]:
            outcomes.append(f"that of cycle {kept} was kept")
        reasons = " ".join(f"Cycle {entry['cycle']}: {entry['reason']}." for entry in mine)
        outcome = f" {' and '.join(outcomes).capitalize()}." if outcomes else ""
        teachers = {entry["cycle"] for entry in failed if entry["kind"] == "cross-encoder"}
        if kind == "bi-encoder" and all(entry["cycle"] in teachers for entry in mine):
            advice = "A cross-encoder that it learnt from has not learnt either."
        else:
            advice = _advice(mine[-1])
        yield f"{name}: the {kind} has not learnt its labels. {reasons}{outcome} {advice}"


def _advice(failure: dict[str, Any]) -> str:
    """What may help, by docs/selection.md and docs/results.md; pairs mined from a small pool have not."""
    section = failure["kind"].replace("-", "_")
    steps, larger = f"It was trained for {failure['steps']:,} steps", f"larger steps ({section}.learning_rate)"
    if failure["steps"] < LEAST_STEPS:
        return f"{steps} only: more pairs, more steps ({section}.{failure['length']}) or {larger} may help."
    return f"{steps}: more pairs, {larger} or another PLM may help."


def _verdict(results: dict[str, Any], name: str) -> str:
    """What a run without a dev set knows of what it kept for a PLM, and how to know more."""
    health = dict(encoders_by_cycle(results["health"], name))
    kept = []
    for kind, entry in sorted(results["final"][name].items()):
        if entry["cycle"] == 0:
            kept.append(f"the start as its {kind}")
        else:
            agreement = percent(health[entry["cycle"]][kind].get("start", 0.0))
            enough = "enough" if entry["as_good_as_start"] else "too little"
            kept.append(
                f"the {kind} of cycle {entry['cycle']}, whose scores of a sample of the pool agree with the start's to "
                f"{agreement}, {enough} to call it as good as the start ({percent(TRUSTED_AGREEMENT)})"
            )
    hint = ""
    if results.get("trusts_students"):
        hint = (
            " It keeps what it trained because the start has seen no label and the pool is large enough: such students "
            "were better than their start in our runs (docs/selection.md)."
        )
    elif results["final"][name].get("bi-encoder", {}).get("cycle") == 0 and not any(
        entry["stopped"] for entry in results.get("not_learnt", [])
    ):
        hint = (
            " Where its start has seen no label and the pool has thousands of pairs, students are likely better: "
            "distillation.selection agreement keeps them."
        )
    if all(entry["cycle"] == 0 for entry in results["final"][name].values()):
        return f"{name}: this run changed nothing: it keeps {' and '.join(kept)}, as it came.{hint}"
    return (
        f"{name}: this run keeps {', and '.join(kept)}. Whether that helps on your pairs, nobody knows without gold "
        f"scores: score some of them yourself and compare (te-trainer annotate).{hint}"
    )


def selection_note(results: dict[str, Any], distillation: DistillationConfig) -> str:
    """Which gold scores were used for what; a run may call itself unsupervised only where none of them chose."""
    reported = any("dev" in results["start"][name]["bi-encoder"] for name in model_names(results))
    if distillation.selection == "dev" or (distillation.selection == "auto" and reported):
        return "Gold scores of the dev set chose checkpoints and cycles."
    final = [results["final"][name] for name in model_names(results)]
    keeps_start = all(kinds["bi-encoder"]["cycle"] == 0 for kinds in final)
    has_cross = any("cross-encoder" in kinds for kinds in final)
    kept = {
        "last": "the last cycle is kept",
        "agreement": "the cycle is kept whose encoders agree best on the pool",
        "auto": "the bi-encoder of the start is kept" + ", and the cross-encoder that agrees best with it" * has_cross
        if keeps_start
        else "the encoders are kept that agree best with the start",
    }[distillation.selection]
    return (
        f"No gold score chose anything in this run, so the distillation was unsupervised: {kept}. "
        + "Gold scores of the dev set are reported only. " * reported
        + "How the starting checkpoints were trained is another matter."
    )


def overlap_entries(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each set with gold scores whose pairs were looked for in the pool: its role, and what was counted."""
    overlap = results.get("overlap", {})
    entries = [("dev", overlap["dev"])] if "dev" in overlap else []
    return entries + [("test", entry) for entry in overlap.get("test", {}).values()]


def overlap_lines(results: dict[str, Any]) -> list[str]:
    """How many pairs of each set with gold scores are in the pool."""
    return [
        f"{role} set {entry['name']}: {entry['in_pool']:,} of its {entry['pairs']:,} pairs "
        f"{'is' if entry['in_pool'] == 1 else 'are'} in the pool, in either order"
        + (", without their gold scores" if entry["in_pool"] else "")
        for role, entry in overlap_entries(results)
    ]


def model_names(results: dict[str, Any]) -> list[str]:
    """The PLMs of a run."""
    return [name for name in results["start"] if name != "ensemble"]


def has_scores(results: dict[str, Any]) -> bool:
    """Whether anything was scored against gold."""
    encoders = [each for name in model_names(results) for _, each in encoders_by_cycle(results, name)]
    return any("dev" in scores or "test" in scores for each in encoders for scores in each.values())


def encoders_by_cycle(part: dict[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each cycle (0: start) and what is known of a PLM's encoders in it, from all results or their `health`."""
    yield 0, part["start"][name]
    for entry in part["cycles"]:
        yield entry["cycle"], entry[name]


def score_of(scores: dict[str, Any], part: str) -> float | None:
    """An encoder's dev score, or its average over the test sets."""
    return scores.get("dev") if part == "dev" else scores.get("test", {}).get("avg")
