"""`report.html`: a finished run on one page that loads nothing, made from the run's folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from te_trainer.config.schema import Kind
from te_trainer.data import Pool
from te_trainer.escaping import printable
from te_trainer.files.atomic import write_text
from te_trainer.report.charts import Point, histogram_chart, movement_chart, scatter_chart, score_chart
from te_trainer.report.labels import (
    Disagreement,
    Distribution,
    Labels,
    Movement,
    disagreements,
    movement,
    rank_correlation,
    sampled,
)
from te_trainer.report.labels_table import EXPLANATION, has_scores, label_rows
from te_trainer.report.summary import score_of
from te_trainer.report.tables import (
    AGREEMENT,
    ENSEMBLE,
    agreement_table,
    overlap_lines,
    percent,
    remarks,
    rows,
    what_chose,
)
from te_trainer.runs.finished import FinishedRun

PAGE = "report.html"
POINTS = 4_000  # of all scatter charts together, and
POINTS_EACH = 2_000
BINS = 50  # of a histogram
PAIRS = 9  # that a list of disagreements holds at most
LONGEST = 400  # characters of a sentence that are shown
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTS = {"dev": "dev", "test": "test average"}
METRICS = {"sts": "Spearman", "binary": "ROC-AUC"}
STAGES = {
    "step0": "step 0: contrastive training",
    "label_bi": "label with bi-encoders",
    "train_cross": "train cross-encoders",
    "label_cross": "label with cross-encoders",
    "train_bi": "train bi-encoders",
    "evaluate": "score on gold sets",
    "total": "total",
}


@dataclass(frozen=True)
class Labelling:
    """Labels that a teacher gave, and how they are distributed.

    Args:
        when: in words.
    """

    when: str
    labels: Labels
    distribution: Distribution


@dataclass(frozen=True)
class Figure:
    """A chart and its caption."""

    caption: str
    svg: Markup


def write_page(root: Path) -> None:
    """Write `report.html` into the folder of a finished run; parts that the folder has nothing for are left out."""
    run = FinishedRun.load(root)
    pairs = Pool.load(root / "pool")[1]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    results = run.results
    task = run.manifest["config"]["distillation"]["task"]
    points = min(POINTS_EACH, POINTS // max(1, len(run.names) * len(run.cycles)))
    page = environment.get_template("page.html").render(
        names=run.names,
        kinds=run.kinds,
        cycles=len(run.cycles),
        metric=METRICS[task],
        pool=run.pool,
        headline=_headline(results),
        table=rows(results),
        remarks=remarks(results),
        chosen_by_dev=run.distillation.selection == "dev",
        chose=what_chose(results, run.distillation),
        ensemble=ENSEMBLE[run.distillation.combine] if "ensemble" in results["final"] else None,
        scored=has_scores(results),
        label_table=None if has_scores(results) else label_rows(results),
        label_table_said=EXPLANATION,
        scores=_score_figures(run, METRICS[task]),
        agreement=agreement_table(results),
        agreement_said=AGREEMENT,
        models=[_model(run, pairs, number, points) for number in range(len(run.names))],
        stages=_stages(results),
        encoders=[
            (name, kind, entry["cycle"], f"{name}/{kind}")
            for name in run.names
            for kind, entry in results["final"][name].items()
        ],
        pool_said=[
            *(printable(line.removeprefix("pool: ")) for line in run.pool.describe()),
            *overlap_lines(results),
        ],
        environment=_flat(results["environment"]),
        configuration="\n".join(
            map(printable, yaml.safe_dump(run.manifest, sort_keys=False, allow_unicode=True).splitlines())
        ),
    )
    write_text(root / PAGE, page)


def _headline(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each encoder that was kept: its scores, and the start's."""
    found = []
    for name, kept in results["final"].items():
        before = results["start"][name]["bi-encoder"]
        for kind in sorted(kept):
            scores = []
            for part, title in PARTS.items():
                start, after = score_of(before, part), score_of(kept[kind], part)
                if start is not None and after is not None:
                    gain = 100 * (after - start)
                    scores.append({"part": title, "start": percent(start), "kept": percent(after), "gain": gain})
            found.append({"name": name, "kind": kind, "cycle": kept[kind].get("cycle"), "scores": scores})
    return found


def _score_figures(run: FinishedRun, metric: str) -> list[Figure]:
    results, kinds = run.results, run.kinds
    # in the order of training: a cross-encoder comes before the bi-encoder that it teaches
    order = sorted(kinds, reverse=True)
    groups = [(0.0, "start")]
    groups += [(len(order) * (at + 0.5) + 0.5, f"cycle {cycle}") for at, cycle in enumerate(run.cycles)]
    found: list[tuple[str, str, list[Point]]] = []
    for part, title in PARTS.items():
        for name in run.names:
            before = score_of(results["start"][name]["bi-encoder"], part)
            if before is None:
                continue
            points = [Point(0, 100 * before, "bi-encoder", False)]
            for entry in results["cycles"]:
                for kind in order:
                    value = score_of(entry[name][kind], part) or 0.0
                    kept = results["final"][name][kind]["cycle"] == entry["cycle"]
                    points.append(Point(len(points), 100 * value, kind, kept))
            found.append((part, " · ".join([name] * (len(run.names) > 1) + [title]), points))
    figures = []
    for number, (part, caption, points) in enumerate(found):
        limits = _padded([p.value for other, _, listed in found for p in listed if other == part])
        told = "; ".join(
            f"{f'cycle {run.cycles[(p.place - 1) // len(order)]}' if p.place else 'start'} {p.kind} {p.value:.2f}"
            for p in points
        )
        title = f"{caption}, {metric} times 100, in the order of training: {told}."
        figures.append(Figure(caption, score_chart(f"scores-{number}", title, points, groups, metric, limits)))
    return figures


def _model(run: FinishedRun, pairs: Dataset, number: int, points: int) -> dict[str, Any]:
    """What the page says of the labels of one PLM."""
    name = run.names[number]
    given = {kind: _labellings(run, name, kind) for kind in run.kinds}
    both = list(zip(given["bi-encoder"], given.get("cross-encoder", []), strict=False))
    moved = {
        kind: [
            (
                f"{before.when} → {after.when}",
                movement(before.labels, after.labels, before.distribution, after.distribution),
            )
            for before, after in pairwise(labellings)
        ]
        for kind, labellings in given.items()
        if len(labellings) > 1
    }
    return {
        "name": name,
        "distributions": _histograms(number, given),
        "table": [
            (kind, each.when, [d.mean, d.spread, d.low, *(d.quantile(share) for share in QUANTILES), d.high])
            for kind, labellings in given.items()
            for each in labellings
            for d in [each.distribution]
        ],
        "scatters": _scatters(number, both, points, run.manifest["config"]["seed"]),
        "points": min(points, len(pairs)),
        "disagreements": _disagreements(both[-1], pairs) if both else [],
        "disagreed_in": both[-1][0].when if both else "",
        "movements": _movements(number, moved),
        "moved": [(kind, when, move) for kind, moves in moved.items() for when, move in moves],
        "quantiles": [
            [move.change.quantile(share) for share in QUANTILES] for moves in moved.values() for _, move in moves
        ],
    }


def _labellings(run: FinishedRun, name: str, kind: Kind) -> list[Labelling]:
    """Every labelling by a PLM's encoders of a kind; that of the last bi-encoder only where agreement asked for it."""
    folders = [(f"cycle {cycle}", run.root / f"cycle-{cycle}" / name / f"{kind}-labels") for cycle in run.cycles]
    folders.append(("end", run.root / "agreement" / name / f"{kind}-labels"))
    found = []
    for when, folder in folders:
        if folder.is_dir():
            labels = Labels(folder, run.pool.pairs)
            found.append(Labelling(when, labels, Distribution.of(labels.blocks)))
    return found


def _histograms(number: int, given: dict[Kind, list[Labelling]]) -> list[Figure]:
    everything = [each.distribution for labellings in given.values() for each in labellings]
    if not everything:
        return []
    low, high = min(d.low for d in everything), max(d.high for d in everything)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    highest = 1.05 * max(float(d.histogram(edges).max()) for d in everything)
    moments = list(dict.fromkeys(each.when for labellings in given.values() for each in labellings))
    figures = []
    for at, when in enumerate(moments):
        here = {
            kind: each.distribution for kind, labellings in given.items() for each in labellings if each.when == when
        }
        told = "; ".join(f"{kind}: mean {d.mean:.3f}, standard deviation {d.spread:.3f}" for kind, d in here.items())
        shares = {kind: d.histogram(edges) for kind, d in here.items()}
        title = f"Histogram of labels, {when}. {told}."
        figures.append(Figure(when, histogram_chart(f"labels-{number}-{at}", title, edges, shares, highest)))
    return figures


def _scatters(number: int, both: Sequence[tuple[Labelling, Labelling]], points: int, seed: int) -> list[Figure]:
    figures = []
    limits = [
        _padded([value for pair in both for value in (pair[side].distribution.low, pair[side].distribution.high)])
        for side in (0, 1)
        if both
    ]
    for at, (bi, cross) in enumerate(both):
        places = sampled(len(bi.labels), points, seed)
        correlation = rank_correlation(bi.labels, cross.labels, bi.distribution, cross.distribution)
        told = f"Spearman {100 * correlation:.2f}"
        title = f"Cross-encoder's labels over the bi-encoder's, {bi.when}: {told} times 100 over the whole pool."
        chart = scatter_chart(f"scatter-{number}-{at}", title, bi.labels.at(places), cross.labels.at(places), limits)
        figures.append(Figure(f"{bi.when} · {told}", chart))
    return figures


def _disagreements(both: tuple[Labelling, Labelling], pairs: Dataset) -> list[tuple[str, list[dict[str, Any]]]]:
    bi, cross = both
    found = disagreements(bi.labels, cross.labels, bi.distribution, cross.distribution, PAIRS)
    titles = ("The bi-encoder ranks them higher", "The cross-encoder ranks them higher")
    return [
        (title, [_shown(each, pairs) for each in listed]) for title, listed in zip(titles, found, strict=True) if listed
    ]


def _shown(each: Disagreement, pairs: Dataset) -> dict[str, Any]:
    row = pairs[each.row]
    return {
        "sentences": [_shortened(row["sentence1"]), _shortened(row["sentence2"])],
        "labels": list(zip(("bi-encoder", "cross-encoder"), each.labels, each.ranks, strict=True)),
    }


def _movements(number: int, moved: dict[Kind, list[tuple[str, Movement]]]) -> list[Figure]:
    spans = {
        kind: [(when, [move.change.quantile(share) for share in QUANTILES]) for when, move in moves]
        for kind, moves in moved.items()
    }
    limits = _padded([0.0, *(value for listed in spans.values() for _, values in listed for value in values)])
    figures = []
    for kind, listed in spans.items():
        told = "; ".join(f"{when} median {values[2]:+.3f}" for when, values in listed)
        title = f"Change of the {kind}'s labels: {told}."
        figures.append(Figure(kind, movement_chart(f"moved-{number}-{kind}", title, listed, kind, limits)))
    return figures


def _stages(results: dict[str, Any]) -> list[dict[str, Any]]:
    seconds, tokens = results["seconds"], results.get("tokens", {})
    found = []
    for stage, value in seconds.items():
        count = tokens.get(stage)
        found.append(
            {
                "title": STAGES.get(stage, stage),
                "time": _duration(value),
                "share": value / (seconds["total"] or 1),
                "real": count and count["real"],
                "padding": count and count["padding"] / max(1, count["real"] + count["padding"]),
                "speed": count and value and count["real"] / value,
            }
        )
    return found


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis around values."""
    low, high = min(values), max(values)
    space = 0.08 * (high - low) or 1.0
    return low - space, high + space


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _flat(content: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        found += _flat(value) if isinstance(value, dict) else [(key, str(value))]
    return found
