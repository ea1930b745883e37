"""Draws a table's charts in the look of its figures: bars for each class, training curves."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from components.report.figures import DASHES, PALETTE, inline, look, to_png, to_svg
from components.report.formats import fixed
from components.report.results import BarChart, TableResult, TrainingChart

WIDTH = 4.4  # inches: legible on a telephone, and two abreast elsewhere
PANEL = 1.75  # inches
MARGINS = 0.75  # inches: names of the axis, legend
BAR = 0.075  # inches
GAP = 0.09  # inches between classes
LONGEST = 26  # characters of a class's name
SHORT = 15  # characters of rows' names, of which three stand abreast


class Chart(NamedTuple):
    """A chart in the forms that the report needs.

    Attributes:
        svg: Stands alone.
        png: Stands alone, for Markdown.
        inline: SVG for a page that defines the colours as CSS variables.
    """

    svg: str
    png: bytes
    inline: str


def draw_charts(table: TableResult) -> dict[str, Chart]:
    """Draw all charts of a table, by their keys; equal data gives equal bytes."""
    drawn = {}
    for bars in table.per_class:
        words = f"{bars.metric} of each class", describe_bars(bars)
        drawn[bars.key] = _drawn(bars.key, words, partial(_bars, bars))
    for chart in table.training:
        words = "Training curves", describe_training(chart)
        drawn[chart.key] = _drawn(chart.key, words, partial(_training, chart))
    return drawn


def describe_bars(bars: BarChart) -> str:
    """Say in words what every row has for each class."""
    rows = []
    for series in bars.series:
        values = zip(bars.classes, series.values, strict=True)
        rows.append(f"{series.name}: " + ", ".join(f"{name} {fixed(v, 1)}" for name, v in values))
    return f"{bars.metric}. " + "; ".join(rows) + "."


def describe_training(chart: TrainingChart) -> str:
    """Say in words where every curve ends."""
    panels = (
        f"{panel.name}: "
        + ", ".join(
            f"{curve.name} ends at {curve.end[1]:.4g} at {chart.x_name} {curve.end[0]:g}"
            for curve in panel.curves
        )
        for panel in chart.panels
    )
    return "; ".join(panels) + "."


def _drawn(key: str, words: tuple[str, str], draw: Callable[[], Canvas]) -> Chart:
    with look(key):
        mpl.rcParams["font.size"] = 9
        drawing = draw()
        svg = to_svg(drawing)
        return Chart(svg, to_png(drawing), _shorter(inline(svg, key, *words)))


def _shorter(svg: str) -> str:
    """Round the coordinates to hundredths of a point, a fraction of a pixel; texts stay."""

    def rounded(tag: re.Match[str]) -> str:
        return re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", tag[0]))

    return re.sub(r"<[^>]*>", rounded, svg)


def _bars(bars: BarChart) -> Canvas:
    group = BAR * len(bars.series)
    height = len(bars.classes) * (group + GAP)
    canvas = Canvas(figsize=(WIDTH, height + MARGINS), layout="constrained")
    axes = canvas.add_subplot()
    handles: dict[str, Any] = {}
    for index, series in enumerate(bars.series):
        known = [(place, value) for place, value in enumerate(series.values) if value is not None]
        handles[series.name] = axes.barh(
            [place * (group + GAP) + (index + 0.5) * BAR for place, _ in known],
            [value for _, value in known],
            height=BAR * 0.92,
            color=PALETTE[series.colour % len(PALETTE)],
            alpha=1 if series.colour < len(PALETTE) else 0.5,
        )
    axes.set_yticks(
        [place * (group + GAP) + group / 2 for place in range(len(bars.classes))],
        [_short(name) for name in bars.classes],
    )
    axes.set_ylim(height - GAP / 2, -GAP / 2)  # the first class on top
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(bars.metric)
    _legend(canvas, handles)
    return canvas


def _training(chart: TrainingChart) -> Canvas:
    canvas = Canvas(figsize=(WIDTH, PANEL * len(chart.panels) + MARGINS), layout="constrained")
    grid = canvas.subplots(len(chart.panels), sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid[:, 0], chart.panels, strict=True):
        for curve in panel.curves:
            xs, ys = zip(*curve.points, strict=True)
            (handles[curve.name],) = axes.plot(
                xs,
                ys,
                color=PALETTE[curve.colour % len(PALETTE)],
                linestyle=DASHES if curve.style == "dashed" else "solid",
                linewidth=1.4,
                marker="o" if len(xs) == 1 else None,
                markersize=4,
            )
        axes.set_ylabel(panel.name)
        axes.margins(x=0.01)
    grid[-1, 0].set_xlabel(chart.x_name)
    canvas.align_ylabels()
    _legend(canvas, handles)
    return canvas


def _legend(canvas: Canvas, handles: Mapping[str, Any]) -> None:
    canvas.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=3 if max(map(len, handles)) <= SHORT else 2,
        handlelength=1.5,
        columnspacing=1.2,
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
