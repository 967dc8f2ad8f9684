"""Charts as inline SVG: drawn by matplotlib, coloured by the page's style sheet, equal bytes for equal numbers."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from te_trainer.config.types import Kind
from te_trainer.report.drawing import import_matplotlib

# matplotlib is imported where it draws: all processes of every job import this module, and one of them draws at last
if TYPE_CHECKING:
    from matplotlib.axes import Axes

XLINK = "http://www.w3.org/1999/xlink"
# Colours that stand for variables of the style sheet, which differ between dark and light.
INK, FAINT = "#000001", "#000002"
COLOURS: dict[Kind, str] = {"bi-encoder": "#000003", "cross-encoder": "#000004"}
VARIABLES = {INK: "ink", FAINT: "faint", COLOURS["bi-encoder"]: "bi", COLOURS["cross-encoder"]: "cross"}
MARKERS: dict[Kind, str] = {"bi-encoder": "o", "cross-encoder": "s"}
LINES: dict[Kind, str] = {"bi-encoder": "-", "cross-encoder": "--"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


class Point(NamedTuple):
    """A score in the order of training."""

    position: int  # 0 for the start, then one after another
    value: float  # times 100
    kind: Kind
    kept: bool
    when: str


# Arguments of all charts: `name` is unique in a page, `description` is the chart's text alternative.


def score_chart(
    name: str,
    description: str,
    points: Sequence[Point],
    ticks: Sequence[tuple[float, str]],
    metric: str,
    limits: Sequence[float],
) -> Markup:
    """Scores in the order of training: the start, then the encoders of each cycle; what was kept has a ring."""

    def draw(axes: Axes) -> None:
        axes.axhline(points[0].value, color=INK, linewidth=0.9, linestyle=":")
        axes.plot([p.position for p in points], [p.value for p in points], color=FAINT, linewidth=0.9)
        for kind, colour in COLOURS.items():
            chosen = [(p.position, p.value) for p in points if p.kind == kind]
            rings = [(p.position, p.value) for p in points if p.kind == kind and p.kept]
            axes.plot(*_columns(chosen), LINES[kind] + MARKERS[kind], color=colour, linewidth=1.8, markersize=6)
            axes.plot(*_columns(rings), "o", mec=colour, mfc="none", markersize=13, markeredgewidth=1.5)
        axes.set_xticks(*_columns(ticks))
        axes.set_xlim(-0.5, points[-1].position + 0.5)
        axes.set_ylim(*limits)
        axes.set_ylabel(f"{metric} × 100")
        axes.tick_params(axis="x", length=0)

    return _svg(name, description, draw, 3.0)


def histogram_chart(
    name: str, description: str, edges: np.ndarray, shares: dict[Kind, np.ndarray], highest: float
) -> Markup:
    """Histograms of the teachers' labels over each other: fractions of the pool, shape (bins,)."""

    def draw(axes: Axes) -> None:
        for kind, share in shares.items():
            axes.stairs(share, edges, fill=True, color=COLOURS[kind], alpha=0.25)
            axes.stairs(share, edges, color=COLOURS[kind], linewidth=1.5, linestyle=LINES[kind])
        axes.set_ylim(0, highest)
        _percent_ticks(axes)
        axes.set_xlabel("label")
        axes.set_ylabel("share of the pool")

    return _svg(name, description, draw, 2.5)


def drawing_chart(name: str, description: str, edges: np.ndarray, candidates: np.ndarray, pairs: np.ndarray) -> Markup:
    """Histograms of the scores of candidates and of the pairs that were drawn of them: fractions, shape (bins,)."""

    def draw(axes: Axes) -> None:
        axes.stairs(candidates, edges, fill=True, color=FAINT, alpha=0.5)
        axes.stairs(pairs, edges, color=INK, linewidth=1.5)
        _percent_ticks(axes)
        axes.set_xlabel("score by the start")
        axes.set_ylabel("share")

    return _svg(name, description, draw, 2.5)


def scatter_chart(
    name: str, description: str, bi: np.ndarray, cross: np.ndarray, limits: Sequence[tuple[float, float]]
) -> Markup:
    """The cross-encoder's labels over the bi-encoder's labels of the same pairs."""

    def draw(axes: Axes) -> None:
        axes.plot(bi, cross, "o", markersize=3.2, color=INK, alpha=0.45, markeredgewidth=0)
        axes.grid(visible=True, axis="both")
        axes.set_xlim(*limits[0])
        axes.set_ylim(*limits[1])
        axes.set_xlabel("bi-encoder's label")
        axes.set_ylabel("cross-encoder's label")

    return _svg(name, description, draw, 3.2)


def movement_chart(
    name: str, description: str, rows: Sequence[tuple[str, Sequence[float]]], kind: Kind, limits: Sequence[float]
) -> Markup:
    """Quantiles of the changes of labels (`QUANTILES`): the middle half thick, nine tenths thin, the median a mark."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=0.9, linestyle=":")
        for height, (_, (least, lower, median, upper, most)) in enumerate(rows):
            axes.plot([least, most], [height, height], color=COLOURS[kind], linewidth=1.5)
            axes.plot([lower, upper], [height, height], color=COLOURS[kind], linewidth=7, solid_capstyle="butt")
            axes.plot(median, height, "o", markersize=9, color=INK)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(*limits)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.set_xlabel("change of the label")
        axes.tick_params(axis="y", length=0)

    return _svg(name, description, draw, 0.9 + 0.45 * len(rows))


def _columns(pairs: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [one for one, _ in pairs], [two for _, two in pairs]


def _percent_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _svg(name: str, description: str, draw: Callable[[Axes], None], height: float) -> Markup:
    """One pair of axes as a part of a page: a text alternative, names of its own, colours of the page, no metadata.

    It is 331 pixels wide, about what a phone has, so that text keeps its size there.
    """
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        draw(figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for node in root.iter():
        # a style sheet of a chart would hold for the whole page
        for style in [child for child in node if child.tag.endswith("}style")]:
            node.remove(style)
        # a page has no namespaces
        node.tag = node.tag.rpartition("}")[2]
        if (link := node.attrib.pop(f"{{{XLINK}}}href", None)) is not None:
            node.set("href", f"#{name}-{link[1:]}")
        if "id" in node.attrib:
            node.set("id", f"{name}-{node.get('id')}")
        if "clip-path" in node.attrib:
            node.set("clip-path", node.attrib["clip-path"].replace("#", f"#{name}-"))
        for colour, variable in VARIABLES.items():
            if colour in node.get("style", ""):
                node.set("style", node.attrib["style"].replace(colour, f"var(--{variable})"))
    for group in root.iter():
        _style_once(group)
    for size in ("width", "height", "version"):
        del root.attrib[size]
    root.set("role", "img")
    root.set("aria-label", description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _style_once(group: ElementTree.Element) -> None:
    """Give the group the style that all its marks have in common: thousands of points need it once."""
    styles = {mark.get("style", "") for mark in group}
    if len(group) > 1 and len(styles) == 1 and all(mark.tag == "use" for mark in group):
        group.set("style", styles.pop())
        for mark in group:
            del mark.attrib["style"]
            for axis in ("x", "y"):
                mark.set(axis, f"{float(mark.attrib[axis]):.1f}")
