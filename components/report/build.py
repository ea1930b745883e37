"""Builds the report: computes it as data, draws the figures, writes every form of it."""

import shutil

from components.core.log import get_logger
from components.core.main import Job
from components.core.metrics import read_metrics
from components.report import ReportConfig
from components.report.figures import draw
from components.report.render import render_html, render_markdown
from components.report.results import REPORT
from components.report.summary import Measured, summarise

log = get_logger(__name__)


def run(job: Job[ReportConfig]) -> None:
    """Put all metrics at hand beside the published numbers.

    Writes `report.json`, `index.html`, `report.md` and `figures/`; the `html`
    output is a copy of the page. The same inputs give the same bytes.
    """
    report = summarise(job.config, _measurements(job))
    pictures = {figure.key: draw(figure) for figure in report.figures if figure.drawn}

    folder = job.output("report")
    for key, picture in pictures.items():
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "figures" / f"{key}.svg").write_text(picture.svg, "utf-8")
        (folder / "figures" / f"{key}.png").write_bytes(picture.png)
    (folder / REPORT).write_text(report.model_dump_json(indent=1) + "\n", "utf-8")
    (folder / "report.md").write_text(render_markdown(report), "utf-8")
    (folder / "index.html").write_text(render_html(report, pictures), "utf-8")
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
        measured[key] = Measured(read_metrics(folder), manifest.lineage())
    return measured
