"""Draws a figure's curves: SVG that follows the page's colours, and PNG for Markdown."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from components.report.results import FigureResult

WIDE = (7.4, 3.7)  # inches, 72 SVG units each
NARROW = (4.0, 3.7)  # for a telephone's width
PAPER = "#ffffff"
INK = "#1d2024"
FAINT = "#dcdfe3"
MUTED = "#5b626b"
PALETTE = ("#0a62b5", "#c2480c", "#1c7d4d", "#7a3fa8")
"""Told apart with every common colour blindness; kinds of curve differ in dashes, too."""
DASHES = (0, (4, 2))  # of a dashed curve, in widths of its line

_VARIABLES: Mapping[str, str] = {
    PAPER: "var(--paper)",
    INK: "var(--ink)",
    FAINT: "var(--rule)",
    MUTED: "var(--muted)",
    **{colour: f"var(--curve-{index})" for index, colour in enumerate(PALETTE)},
}


class Drawing(NamedTuple):
    """A figure in the forms that the report needs.

    Attributes:
        svg: Stands alone.
        png: Stands alone, for Markdown.
        wide: SVG for inlining into a page that defines the colours as CSS variables.
        narrow: The same for a narrow window.
    """

    svg: str
    png: bytes
    wide: str
    narrow: str


def draw(figure: FigureResult) -> Drawing:
    """Draw the curves that there are; equal curves give equal bytes."""
    words = (figure.title, description(figure))
    with look(figure.key):
        svg = to_svg(_canvas(figure, WIDE))
        return Drawing(
            svg=svg,
            png=to_png(_canvas(figure, WIDE)),
            wide=inline(svg, f"{figure.key}-wide", *words),
            narrow=inline(to_svg(_canvas(figure, NARROW)), f"{figure.key}-narrow", *words),
        )


@contextmanager
def look(salt: str) -> Iterator[None]:
    """Use this module's look, whatever the machine's matplotlibrc says."""
    settings: dict[Any, Any] = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": MUTED,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "figure.facecolor": PAPER,
        "axes.facecolor": "none",
        "legend.frameon": False,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def _canvas(figure: FigureResult, size: tuple[float, float]) -> Canvas:
    canvas = Canvas(figsize=size, layout="constrained")
    axes = canvas.add_subplot()
    lines: list[Line2D] = []
    for curve in figure.drawn:
        xs, ys = zip(*curve.points, strict=True)
        lines += axes.plot(
            xs,
            ys,
            color=PALETTE[curve.colour % len(PALETTE)],
            linestyle=DASHES if curve.style == "dashed" else "solid",
            linewidth=1.8,
            marker="o" if len(xs) == 1 or figure.x_scale == "log" else None,
        )
    if figure.x_scale == "log":
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({x for curve in figure.drawn for x, _ in curve.points}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(figure.x_name)
    axes.set_ylabel(figure.y_name)
    axes.margins(x=0.01)
    names = [curve.name for curve in figure.drawn]
    columns = 2 if size == WIDE else 1
    canvas.legend(lines, names, loc="outside lower center", ncols=columns, handlelength=3)
    return canvas


def to_svg(canvas: Canvas) -> str:
    """Return a drawing as SVG that stands alone and holds no date."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    canvas.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def to_png(canvas: Canvas) -> bytes:
    """Return a drawing as PNG."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def inline(svg: str, prefix: str, title: str, words: str) -> str:
    """Fit an SVG document into a page: its colours, its font, names of its own, a description."""
    text = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    label = f'role="img" aria-labelledby="{prefix}-title {prefix}-description"'
    described = (
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-description">{escape(words)}</desc>'
    )
    return re.sub(r"<svg([^>]*)>", lambda m: f"<svg{m[1]} {label}>{described}", text, count=1)


def description(figure: FigureResult) -> str:
    """Say in words where every curve ends."""
    ends = (
        f"{curve.name} ({curve.style}) ends at {curve.end[1]:.1f} at {figure.x_name} "
        f"{curve.end[0]:g}"
        for curve in figure.drawn
    )
    return f"{figure.y_name} over {figure.x_name}. " + "; ".join(ends) + "."
