import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.manifest import verify
from components.core.metrics import Metrics
from components.report import Figure, ReportConfig, Table
from components.report.results import read_report

Make = Callable[..., Path]


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_the_command_line_writes_every_form_and_always_the_same_bytes(
    inaturalist: Table,
    figure_a1: Figure,
    ablation_metrics: dict[str, Metrics],
    report_on: Make,
    tmp_path: Path,
) -> None:
    config = ReportConfig(tables=(inaturalist,), figures=(figure_a1,))
    found = {
        f"inaturalist__random__r50__{number}": Metrics(values={"top1": 61.6 + number / 10})
        for number in range(3)
    } | ablation_metrics

    folder = report_on(config, found, "first")
    again = report_on(config, dict(reversed(found.items())), "second")

    assert set(_files(folder)) == {
        "figures/shuffling_bn.png",
        "figures/shuffling_bn.svg",
        "index.html",
        "manifest.json",
        "report.json",
        "report.md",
    }
    manifest = verify(folder)
    assert manifest.facts == {"trials_done": 3, "trials_wanted": 9}
    assert manifest.files == verify(again).files
    page = (tmp_path / "views" / "first.html").read_bytes()
    assert page == (folder / "index.html").read_bytes()
    assert len(page) < 5_000_000

    report = read_report(folder)
    assert report.tables[0].rows[0].cells[0].values[0].measured == pytest.approx(61.7)
    measured = json.loads(
        (tmp_path / "artifacts/inaturalist__random__r50__0/manifest.json").read_text()
    )
    trial = report.tables[0].rows[0].cells[0].trials[0]
    metrics = report.artifacts[trial.artifact].files["metrics.json"]
    assert metrics.sha256 == measured["files"]["metrics.json"]["sha256"]


def test_without_any_metrics_the_report_is_a_list_of_commands(
    inaturalist: Table, figure_a1: Figure, report_on: Make
) -> None:
    folder = report_on(ReportConfig(tables=(inaturalist,), figures=(figure_a1,)), {})

    page = (folder / "index.html").read_text("utf-8")
    for row in ("random", "supervised", "moco_in1m"):
        assert inaturalist.fill(row, "r50") in page
    assert figure_a1.command in page
    assert not (folder / "figures").exists()
