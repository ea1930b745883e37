"""Builds the report: computes it as data, draws the figures, writes every form of it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from components.core.log import get_logger
from components.core.stage import Job
from components.report import ReportConfig
from components.report.charts import draw_charts
from components.report.figures import draw
from components.report.measured import Measured, read_measured
from components.report.render import render_html, render_markdown
from components.report.results import REPORT, Report
from components.report.summary import summarise

log = get_logger(__name__)


def run(job: Job[ReportConfig]) -> None:
    """Put all metrics at hand beside the published numbers.

    Writes `report.json`, `index.html`, `report.md`, `figures/` and `pictures/`; the
    `html` output is a copy of the page. The same inputs give the same bytes.
    """
    measured = _measurements(job)
    report = summarise(job.config, measured)
    figures = {figure.key: draw(figure) for figure in report.figures if figure.drawn}
    charts = {key: chart for table in report.tables for key, chart in draw_charts(table).items()}
    pictures = _pictures(report, measured)

    folder = job.output("report")
    for key, drawing in (figures | charts).items():
        _write(folder / "figures" / f"{key}.svg", drawing.svg.encode())
        _write(folder / "figures" / f"{key}.png", drawing.png)
    for file, content in pictures.items():
        _write(folder / file, content)
    _write(folder / REPORT, (report.model_dump_json(indent=1) + "\n").encode())
    _write(folder / "report.md", render_markdown(report).encode())
    _write(folder / "index.html", render_html(report, figures, charts, pictures).encode())
    shutil.copyfile(folder / "index.html", job.output("html"))

    done = sum(table.done for table in report.tables)
    wanted = sum(table.wanted for table in report.tables)
    job.facts.update(trials_done=done, trials_wanted=wanted)
    log.info("report written", page=str(folder / "index.html"), trials=f"{done} of {wanted}")


def _measurements(job: Job[ReportConfig]) -> dict[str, Measured]:
    measured = {}
    for key, folder in job.inputs("metrics").items():
        manifest = job.lineage(f"metrics.{key}")
        assert manifest is not None  # a metrics input is an artifact of ours, or refused on entry
        measured[key] = read_measured(folder, manifest)
    return measured


def _pictures(report: Report, measured: Mapping[str, Measured]) -> dict[str, bytes]:
    """Read the pictures that a report shows, by the files that they become."""
    return {
        sheet.file: picture.path.read_bytes()
        for table in report.tables
        for sheet in table.sheets
        for picture in measured[sheet.key].pictures
        if picture.entry.sha256 == sheet.sha256
    }


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
