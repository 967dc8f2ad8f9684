"""`report.html`: a finished run on one page that loads nothing, made from the run's folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from datasets import Dataset
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from te_trainer.config.parsing import flatten_keys
from te_trainer.config.types import SENTENCE_COLUMNS, Kind
from te_trainer.data import PoolManifest
from te_trainer.data.text_file import draw
from te_trainer.distillation.selection import agreement
from te_trainer.escaping import printable
from te_trainer.files.atomic import write_text
from te_trainer.files.records import read_json
from te_trainer.metrics import METRIC_TITLES
from te_trainer.report.charts import Point, histogram_chart, movement_chart, scatter_chart, score_chart
from te_trainer.report.labels import QUANTILES, Labelling, at_quantiles, disagreements
from te_trainer.report.mined_pairs import mining_section
from te_trainer.report.remarks import (
    AGREEMENT_DESCRIPTION,
    ENSEMBLE_DESCRIPTIONS,
    HEALTH_DESCRIPTION,
    overlap_lines,
    selection_note,
)
from te_trainer.report.run_results import has_scores, score_of
from te_trainer.report.run_tables import agreement_table, health_table, result_table, stage_table
from te_trainer.report.table_formats import Table, percent
from te_trainer.runs.finished import FinishedRun
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.saved import read_labels

POINTS = 4_000  # of all scatter charts together, and
POINTS_EACH = 2_000
BINS = 50  # of a histogram
MAX_DISAGREEMENTS = 9  # pairs in each list
MAX_CHARACTERS = 400  # of a sentence that is shown
SCORE_TITLES = {"dev": "dev", "test": "test average"}

Labellings = dict[Kind, list[Labelling]]


class Figure(NamedTuple):
    """A chart and its caption."""

    caption: str
    svg: Markup


def write_page(root: Path) -> None:
    """Write `report.html` into the folder of a finished run; parts that the folder has nothing for are left out."""
    run = FinishedRun.load(root)
    results = run.results
    metric = run.metric
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configuration = yaml.safe_dump(run.manifest, sort_keys=False, allow_unicode=True)
    page = environment.get_template("page.html").render(
        run=run,
        results=results,
        metric=METRIC_TITLES[metric],
        headline=_headline(results),
        scored=has_scores(results),
        result_table=result_table(results, metric),
        health=health_table(results),
        health_description=HEALTH_DESCRIPTION,
        selection_note=selection_note(results, run.distillation),
        ensemble_description=ENSEMBLE_DESCRIPTIONS[run.distillation.combine] if "ensemble" in results["final"] else "",
        score_figures=_score_figures(run, METRIC_TITLES[metric]),
        agreement=agreement_table(results),
        agreement_description=AGREEMENT_DESCRIPTION,
        mining=mining_section(run),
        neighbours=_neighbours(run),
        models=[_label_section(run, index) for index in range(len(run.names))],
        stages=stage_table(results),
        pool_lines=[printable(line.removeprefix("pool: ")) for line in run.pool.describe()] + overlap_lines(results),
        environment=Table(["key", "value"], list(flatten_keys(results["environment"]).items()), text_columns=2),
        configuration="\n".join(map(printable, configuration.splitlines())),
    )
    write_text(RunLayout(root).page, page)


def _headline(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of each encoder that was kept, beside those of the start."""
    entries = []
    for name, kept in results["final"].items():
        start = results["start"][name]["bi-encoder"]
        for kind in sorted(kept):
            scores = []
            for part, title in SCORE_TITLES.items():
                before, after = score_of(start, part), score_of(kept[kind], part)
                if before is not None and after is not None:
                    gain = round(100 * (after - before), 2) + 0.0  # no -0.0
                    scores.append({"part": title, "start": percent(before), "kept": percent(after), "gain": gain})
            entries.append({"name": name, "kind": kind, "cycle": kept[kind].get("cycle"), "scores": scores})
    return entries


def _score_figures(run: FinishedRun, metric: str) -> list[Figure]:
    results = run.results
    # in the order of training: a cross-encoder comes before the bi-encoder that it teaches
    order = sorted(run.kinds, reverse=True)
    ticks = [(0.0, "start")]
    ticks += [(len(order) * (index + 0.5) + 0.5, f"cycle {cycle}") for index, cycle in enumerate(run.cycles)]
    figures: list[Figure] = []
    for part, title in SCORE_TITLES.items():
        curves: dict[str, list[Point]] = {}
        for name in run.names:
            start = score_of(results["start"][name]["bi-encoder"], part)
            if start is None:
                continue
            kept = results["final"][name]["bi-encoder"]["cycle"] == 0
            points = curves[name] = [Point(0, 100 * start, "bi-encoder", kept, "start")]
            for entry in results["cycles"]:
                for kind in (kind for kind in order if kind in entry[name]):
                    value = score_of(entry[name][kind], part) or 0.0
                    kept = results["final"][name][kind]["cycle"] == entry["cycle"]
                    points.append(Point(len(points), 100 * value, kind, kept, f"cycle {entry['cycle']}"))
        for name, points in curves.items():
            limits = _with_margin([point.value for curve in curves.values() for point in curve])
            caption = f"{name} · {title}" if len(run.names) > 1 else title
            values = "; ".join(f"{point.when} {point.kind} {_number(point.value, 'z.2f')}" for point in points)
            description = f"{caption}, {metric} × 100, in the order of training: {values}."
            chart = score_chart(f"scores-{len(figures)}", description, points, ticks, metric, limits)
            figures.append(Figure(caption, chart))
    return figures


def _neighbours(run: FinishedRun) -> list[dict[str, Any]]:
    """Of each PLM, the sentences whose neighbours changed most; nothing where the run has not compared them."""
    if not run.layout.neighbours.exists():
        return []
    sections = []
    for name, found in read_json(run.layout.neighbours).items():
        changed = [
            {
                "sentence": _shortened(each["sentence"]),
                "lists": [
                    (title, [entry | {"sentence": _shortened(entry["sentence"])} for entry in each[key]])
                    for key, title in (("before", "Nearest by the start"), ("after", "Nearest now"))
                ],
            }
            for each in found["changed"]
        ]
        kept = run.results["final"][name]["bi-encoder"]["cycle"] == found["cycle"]
        sections.append(found | {"name": name, "kept": kept, "changed": changed})
    return sections


def _label_section(run: FinishedRun, index: int) -> dict[str, Any]:
    """What the page says of the labels of one PLM."""
    pairs = PoolManifest.load(run.layout.pool)[1]
    labellings = _labellings(run, run.names[index])
    both = list(zip(labellings["bi-encoder"], labellings.get("cross-encoder", []), strict=False))
    points = min(POINTS_EACH, POINTS // max(1, len(run.names) * len(run.cycles)), len(pairs))
    distributions = [
        [
            kind,
            each.when,
            *map(_number, (each.mean, each.std, each.limits[0], *at_quantiles(each.values), each.limits[1])),
        ]
        for kind, all_of_kind in labellings.items()
        for each in all_of_kind
    ]
    quantile_columns = [f"{100 * each:.0f} %" if each != 0.5 else "median" for each in QUANTILES]
    moments = ["mean", "std. dev.", "least", *quantile_columns, "most"]
    movement_figures, movement_table = _movements(index, labellings, quantile_columns)
    return {
        "name": run.names[index],
        "histograms": _histograms(index, labellings),
        "distributions": Table(["teacher", "labels of", *moments], distributions, text_columns=2),
        "scatters": _scatters(index, both, draw(np.arange(len(pairs)), points, run.manifest["config"]["seed"])),
        "points": points,
        "disagreements": _disagreements(*both[-1], pairs) if both else [],
        "disagreed_in": both[-1][0].when if both else "",
        "movements": movement_figures,
        "movement_table": movement_table,
    }


def _labellings(run: FinishedRun, name: str) -> Labellings:
    """Every labelling by a PLM's encoders; that of the last bi-encoder is there only where agreement asked for it."""
    folders = {f"cycle {cycle}": run.layout.model(cycle, name) for cycle in run.cycles}
    folders["end"] = run.root / "agreement" / name
    again = {"delete": "this folder", "then": "the run's command writes the page without these labels"}
    return {
        kind: [
            Labelling(when, read_labels(folder / f"{kind}-labels", {}, run.pool.num_rows, **again))
            for when, folder in folders.items()
            if (folder / f"{kind}-labels").is_dir()
        ]
        for kind in run.kinds
    }


def _histograms(index: int, labellings: Labellings) -> list[Figure]:
    by_cycle: dict[str, dict[Kind, Labelling]] = {}
    for kind, all_of_kind in labellings.items():
        for each in all_of_kind:
            by_cycle.setdefault(each.when, {})[kind] = each
    if not by_cycle:
        return []
    limits = [each.limits for here in by_cycle.values() for each in here.values()]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    shares = {
        when: {kind: np.histogram(each.values, edges)[0] / len(each.values) for kind, each in here.items()}
        for when, here in by_cycle.items()
    }
    highest = 1.05 * max(float(share.max()) for here in shares.values() for share in here.values())
    figures: list[Figure] = []
    for when, here in by_cycle.items():
        moments = (
            f"{kind}: mean {_number(each.mean)}, standard deviation {each.std:.3f}" for kind, each in here.items()
        )
        description = f"Histogram of labels, {when}. {'; '.join(moments)}."
        chart = histogram_chart(f"labels-{index}-{len(figures)}", description, edges, shares[when], highest)
        figures.append(Figure(when, chart))
    return figures


def _scatters(index: int, both: Sequence[tuple[Labelling, Labelling]], rows: np.ndarray) -> list[Figure]:
    limits = [_with_margin([value for each in side for value in each.limits]) for side in zip(*both, strict=True)]
    figures: list[Figure] = []
    for bi, cross in both:
        correlation = f"Spearman × 100 {_number(100 * agreement(bi.values, cross.values), 'z.2f')}"
        description = f"Cross-encoder's labels over the bi-encoder's, {bi.when}: {correlation} over the whole pool."
        name = f"scatter-{index}-{len(figures)}"
        chart = scatter_chart(name, description, bi.values[rows], cross.values[rows], limits)
        figures.append(Figure(f"{bi.when} · {correlation}", chart))
    return figures


def _disagreements(bi: Labelling, cross: Labelling, pairs: Dataset) -> list[tuple[str, list[dict[str, Any]]]]:
    """The pairs that the teachers rank most differently, as two lists under titles; an empty list is left out."""
    titles = ("The bi-encoder ranks them higher", "The cross-encoder ranks them higher")
    lists = []
    for title, rows in zip(titles, disagreements(bi, cross, MAX_DISAGREEMENTS), strict=True):
        entries = []
        for row in rows:
            labels = [
                (kind, _number(each.values[row]), f"{100 * each.ranks[row]:.0f}")
                for kind, each in (("bi-encoder", bi), ("cross-encoder", cross))
            ]
            sentences = [_shortened(pairs[row][column]) for column in SENTENCE_COLUMNS]
            entries.append({"sentences": sentences, "labels": labels})
        if entries:
            lists.append((title, entries))
    return lists


def _movements(index: int, labellings: Labellings, columns: list[str]) -> tuple[list[Figure], Table]:
    """How labels changed from each labelling to the next: a chart of each kind, and all in a table."""
    spans: dict[Kind, list[tuple[str, list[float]]]] = {}
    rows = []
    for kind, all_of_kind in labellings.items():
        for before, after in pairwise(all_of_kind):
            when, span = f"{before.when} → {after.when}", at_quantiles(after.values - before.values)
            spans.setdefault(kind, []).append((when, span))
            correlation = percent(agreement(before.values, after.values))
            rows.append([kind, when, *(_number(value, "+z.3f") for value in span), correlation])
    limits = _with_margin([0.0, *(value for listed in spans.values() for _, span in listed for value in span)])
    figures = []
    for kind, listed in spans.items():
        medians = "; ".join(f"{when} median {_number(span[2], '+z.3f')}" for when, span in listed)
        description = f"Change of the {kind}'s labels: {medians}."
        figures.append(Figure(kind, movement_chart(f"moved-{index}-{kind}", description, listed, kind, limits)))
    return figures, Table(["teacher", "from, to", *columns, "Spearman"], rows, text_columns=2)


def _with_margin(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis around values."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _number(value: float, shape: str = "z.3f") -> str:
    return format(value, shape).replace("-", "−")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
