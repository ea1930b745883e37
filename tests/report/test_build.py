import base64
import hashlib
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
    artifact: Make,
    report_on: Make,
    photograph: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    config = ReportConfig(tables=(inaturalist,), figures=(figure_a1,))
    found = {
        f"inaturalist__random__r50__{number}": Metrics(values={"top1": 61.6 + number / 10})
        for number in range(3)
    } | ablation_metrics
    sheet = photograph("JPEG")
    classes = json.dumps([{"class": "cat", "top1": 61.0}, {"class": "dog", "top1": 62.0}])
    files = {"per_class.json": classes.encode(), "pictures/sheet.jpg": sheet}
    key = "inaturalist__supervised__r50__0"
    curves = {"loss": [(1.0, 2.0), (2.0, 1.0)]}
    found[key] = Metrics(values={"top1": 66.0}, curves=curves)
    artifact(key, found[key], files=files)

    folder = report_on(config, found, "first")
    again = report_on(config, dict(reversed(found.items())), "second")

    assert set(_files(folder)) == {
        "figures/per_class__inaturalist__r50.png",
        "figures/per_class__inaturalist__r50.svg",
        "figures/shuffling_bn.png",
        "figures/shuffling_bn.svg",
        "figures/training__inaturalist__r50.png",
        "figures/training__inaturalist__r50.svg",
        "index.html",
        "manifest.json",
        f"pictures/{key}__sheet.jpg",
        "report.json",
        "report.md",
    }
    manifest = verify(folder)
    assert manifest.facts == {"trials_done": 4, "trials_wanted": 9}
    assert manifest.files == verify(again).files
    page = (tmp_path / "views" / "first.html").read_bytes()
    assert page == (folder / "index.html").read_bytes()
    assert len(page) < 5_000_000
    assert (folder / "pictures" / f"{key}__sheet.jpg").read_bytes() == sheet
    assert base64.b64encode(sheet) in page
    assert f"](pictures/{key}__sheet.jpg)" in (folder / "report.md").read_text("utf-8")

    report = read_report(folder)
    assert report.tables[0].rows[0].cells[0].values[0].measured == pytest.approx(61.7)
    (shown,) = report.tables[0].sheets
    assert shown.sha256 == hashlib.sha256(sheet).hexdigest()
    assert report.tables[0].per_class[0].classes == ("cat", "dog")
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
