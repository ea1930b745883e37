"""Renders a report as one HTML file that stands alone, and as Markdown."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from components.report.charts import Chart
from components.report.figures import Drawing
from components.report.formats import count, file_size, fixed, is_green, signed, with_spread
from components.report.pictures import CHARTS, PAGE, embed_pictures, fit, why_not
from components.report.results import Artifact, CellResult, Report, RowResult, Sheet, TableResult

METRICS_ABREAST = 3
"""A table with more metrics gets several blocks of them, one below the other."""

MINIATURE = (
    "This is the miniature: the same plan as at full scale, on small scenes of real handwritten "
    "digits and with a small backbone. Published and measured numbers are therefore of different "
    "experiments. Their differences would mean nothing and are left out; what can be compared is "
    "the order of the rows."
)

MINIATURE_OF_OWN = (
    "This is the miniature: the same plan as at full scale, on small scenes of real handwritten "
    "digits and with small backbones. It shows what a report looks like; its numbers say nothing "
    "of encoders and images of other sizes."
)

MIXED = (
    "Not comparable: these numbers come from different model libraries. A difference between two "
    "of them may be one between the libraries."
)


DIFFERENT_SIZES = (
    "Encoders of different sizes: a difference between two rows may be one between what their "
    "encoders are, and not between how they were trained."
)


def render_html(
    report: Report,
    figures: Mapping[str, Drawing],
    charts: Mapping[str, Chart] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """Render the page; everything that comes from elsewhere is escaped.

    Args:
        report: The data.
        figures: Drawings of its figures, by their keys.
        charts: Drawings of its tables' charts, by their keys.
        pictures: Its tables' pictures, by their files.
    """
    template = _environment().get_template("index.html.j2")
    inline = {
        key: {"wide": Markup(picture.wide), "narrow": Markup(picture.narrow)}  # noqa: S704 - ours
        for key, picture in figures.items()
    }

    def page(drawings: Mapping[str, str], sheets: Mapping[str, str]) -> str:
        trusted = {key: Markup(drawing) for key, drawing in drawings.items()}  # noqa: S704 - ours
        return template.render(
            **_context(report), pictures=inline, drawings=trusted, embedded=sheets
        )

    drawings = {key: chart.inline for key, chart in (charts or {}).items()}
    drawings = fit(drawings, min(CHARTS, PAGE - len(page({}, {}).encode())))
    room = PAGE - len(page(drawings, {}).encode())
    return page(drawings, embed_pictures(report, pictures or {}, room))


def render_markdown(report: Report) -> str:
    """Render the same as Markdown; drawings lie in `figures/`, pictures in `pictures/`."""
    text = _environment().get_template("report.md.j2").render(**_context(report))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _escape_markdown
    environment.filters["code"] = _code_span
    environment.filters["cell_code"] = lambda text: _code_span(text).replace("|", "\\|")
    environment.globals.update(
        caption=_caption,
        cell_id=_cell_id,
        classes=_classes,
        count=count,
        digits=_digits,
        extent=_extent,
        file_size=file_size,
        fixed=fixed,
        has_gaps=_has_gaps,
        is_green=is_green,
        json=_json,
        lead=_lead,
        mark=lambda table, source: _sources(table).index(source) + 1,
        shown_in=_shown_in,
        signed=signed,
        sources=_sources,
        spans_of=_spans,
        weights=_weights,
        why_not=why_not,
        with_spread=with_spread,
    )
    return environment


def _context(report: Report) -> dict[str, Any]:
    measures = _measures(report)
    printed = not report.tables or any(table.printed for table in report.tables)
    artifacts = sorted(
        report.artifacts.items(),
        key=lambda item: (item[1].name, measures.get(item[0], ""), item[0]),
    )
    return {
        "report": report,
        "artifacts": artifacts,
        "measures": measures,
        "legend": list(_legend(report)),
        "compared": _compared(report),
        "miniature": MINIATURE if printed else MINIATURE_OF_OWN,
        "printed": printed,
        "mixed": MIXED,
        "different_sizes": DIFFERENT_SIZES,
    }


def _measures(report: Report) -> dict[str, str]:
    """Say for each metrics artifact which cell, figure or other key it is the measurement of."""
    names: dict[str, dict[str, None]] = {}
    for table in report.tables:
        for trial in (trial for row in table.rows for cell in row.cells for trial in cell.trials):
            names.setdefault(trial.artifact, {})[trial.key] = None
    for figure in report.figures:
        for curve in figure.curves:
            if curve.artifact:
                names.setdefault(curve.artifact, {})[f"{figure.key}: {curve.name}"] = None
    for measurement in report.others:
        names.setdefault(measurement.artifact, {})[measurement.key] = None
    return {artifact: ", ".join(keys) for artifact, keys in names.items()}


def _compared(report: Report) -> dict[str, str]:
    """Return the names of the rows that several tables have, by key: what an overview compares."""
    rows = [(row.key, row.name) for table in report.tables for row in table.rows]
    times = Counter(key for key, _ in rows)
    names = dict(reversed(rows))  # as the first table has it
    return {key: names[key] for key in dict.fromkeys(key for key, _ in rows) if times[key] > 1}


def _lead(report: Report) -> str:
    parts = []
    if report.tables:
        done = sum(table.done for table in report.tables)
        wanted = sum(table.wanted for table in report.tables)
        parts.append(f"{done:,} of {count(wanted, 'trial')} measured")
        parts.append(count(len(report.tables), "table"))
    if report.figures:
        parts.append(count(len(report.figures), "figure"))
    return " · ".join(parts) or "No tables and no figures."


def _legend(report: Report) -> Iterator[str]:
    """Say how to read the numbers, as far as the report has such numbers."""
    if not report.tables:
        return
    yield (
        "Measured: mean ± sample standard deviation over the trials done. Every measured number "
        "leads to its trials, and each of those to its config, code, image and inputs."
    )
    if report.comparable:
        yield "Difference: measured minus published."
    if any(_has_gaps(table) for table in report.tables):
        yield (
            "In brackets: the gap to the row with supervised pre-training; "
            "gaps of at least +0.5 are green, as in the paper."
        )


def _spans(table: TableResult) -> list[list[int]]:
    """Split a table's metrics into blocks of equal length, few enough to stand abreast."""
    total = len(table.metrics)
    blocks = -(-total // METRICS_ABREAST)
    length = -(-total // blocks) if blocks else 1
    return [list(range(start, min(start + length, total))) for start in range(0, total, length)]


def _classes(table: TableResult) -> str:
    values = [value for row in table.rows for cell in row.cells for value in cell.values]
    names = {
        "spreads-measured": any(value.deviation is not None for value in values),
    }
    return "".join(f" {name}" for name, given in names.items() if given)


def _digits(table: TableResult) -> int:
    """Return how many characters the longest number has, so that decimals can stand aligned."""
    numbers = (
        fixed(number, value.decimals)
        for row in table.rows
        for cell in row.cells
        for value in cell.values
        for number in (value.published, value.measured)
    )
    return max(map(len, numbers), default=1)


def _has_gaps(table: TableResult) -> bool:
    return any(row.counterpart is not None for row in table.rows)


def _sources(table: TableResult) -> list[str]:
    """Return the sources that single cells name, each once."""
    named = (cell.source for row in table.rows for cell in row.cells)
    return list(dict.fromkeys(source for source in named if source))


def _shown_in(table: TableResult, column: str) -> list[tuple[str, Sheet]]:
    """Return the pictures of a column with their rows' names."""
    names = {row.key: row.name for row in table.rows}
    return [(names[sheet.row], sheet) for sheet in table.sheets if sheet.column == column]


def _caption(shown: list[tuple[str, Sheet]]) -> str:
    """Return the caption that all pictures have, if they have one."""
    captions = {sheet.caption for _, sheet in shown}
    return (captions.pop() or "") if len(captions) == 1 else ""


def _cell_id(table: TableResult, row: RowResult, cell: CellResult) -> str:
    return f"cell-{table.key}__{row.key}__{cell.column}"


def _weights(artifact: Artifact) -> list[tuple[str, str]]:
    """Return name and SHA-256 of the weights' files, where there are some."""
    suffixes = (".safetensors", ".pth", ".pt", ".tar")
    return [
        (name, entry.sha256) for name, entry in artifact.files.items() if name.endswith(suffixes)
    ]


def _extent(artifact: Artifact) -> str:
    if artifact.origin == "mount":
        return "mounted folder"
    short = f", {artifact.digest[:12]}" if artifact.digest else ""
    return f"{count(artifact.file_count, 'file')}, {file_size(artifact.size)}{short}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def _escape_markdown(text: str) -> str:
    """Keep a text from being read as markup, in a table's cell too."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code_span(text: str) -> str:
    """Write a code span whose content may hold backticks."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}"
