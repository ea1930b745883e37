import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.errors import DataError
from components.report import Figure, ReportConfig, Table
from components.report.measured import Measured
from components.report.results import REPORT, read_report
from components.report.summary import summarise
from components.report.text import summary_table_text

Make = Callable[..., Measured]


def test_a_terminal_shows_published_measured_and_difference(
    inaturalist: Table, measured: Make
) -> None:
    found = {
        "inaturalist__random__r50__0": measured(top1=61.9),
        "inaturalist__random__r50__1": measured(top1=62.1),
    }
    text = summary_table_text(summarise(ReportConfig(tables=(inaturalist,)), found))

    line = next(line for line in text.splitlines() if line.startswith("random init."))
    assert " ".join(line.split()) == "random init. 61.8 (−4.3) 62.0 ± 0.1 +0.2 2 of 3"
    assert "MoCo IG-1B: the IG-1B images are not public" in text


@pytest.mark.parametrize("width", [20, 80])
def test_commands_stay_whole_on_a_terminal_of_any_width(
    lvis: Table, figure_a1: Figure, width: int
) -> None:
    report = summarise(ReportConfig(tables=(lvis,), figures=(figure_a1,)), {})
    lines = [line.strip() for line in summary_table_text(report, width).splitlines()]

    assert lvis.fill("moco_in1m", "2x") in lines
    assert figure_a1.command in lines


def test_a_terminal_names_the_model_library_and_warns_of_two(lvis: Table, measured: Make) -> None:
    detectron2 = measured(details={"library": "detectron2"}, ap=1.0, ap50=1.0, ap75=1.0)
    torchvision = measured(details={"library": "torchvision"}, ap=1.0, ap50=1.0, ap75=1.0)
    texts = [
        summary_table_text(summarise(ReportConfig(tables=(lvis,)), found), width=200)
        for found in (
            {lvis.cell("moco_in1m", "1x", 0): detectron2},
            {
                lvis.cell("moco_in1m", "1x", 0): detectron2,
                lvis.cell("moco_in1m", "1x", 1): torchvision,
            },
        )
    ]

    assert "model library: detectron2\n" in texts[0]
    assert "Not comparable, of different model libraries: detectron2 (MoCo IN-1M, 1×" in texts[1]


def test_a_terminal_says_in_what_numbers_were_trained(lvis: Table, measured: Make) -> None:
    details = {"precision": "bf16", "device": "NVIDIA H200"}
    found = {lvis.cell("moco_in1m", "1x", 0): measured(details=details, ap=1.0)}
    text = summary_table_text(summarise(ReportConfig(tables=(lvis,)), found), width=200)

    assert "trained in bf16 on NVIDIA H200\n" in text


def test_the_miniature_has_no_difference_column(inaturalist: Table, measured: Make) -> None:
    found = {"inaturalist__random__r50__0": measured(top1=61.9)}
    text = summary_table_text(summarise(ReportConfig(scale="digits", tables=(inaturalist,)), found))

    assert "difference" not in text
    assert text.startswith("Miniature: ")


def test_names_with_markup_are_printed_as_they_are(inaturalist: Table) -> None:
    title = "a [bold]table[/bold] [/oops]"
    table = Table.model_validate({**inaturalist.model_dump(), "title": title})

    assert title in summary_table_text(summarise(ReportConfig(tables=(table,)), {}))


def test_a_report_is_printed_without_what_draws_one(inaturalist: Table, tmp_path: Path) -> None:
    report = summarise(ReportConfig(tables=(inaturalist,)), {})
    (tmp_path / REPORT).write_text(report.model_dump_json(), "utf-8")
    code = (
        "import sys; from pathlib import Path;"
        "from components.report.results import read_report;"
        "from components.report.text import summary_table_text;"
        f"print(summary_table_text(read_report(Path({str(tmp_path)!r}))));"
        "assert not {'matplotlib', 'jinja2', 'numpy', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == summary_table_text(report).strip()


def test_a_file_that_is_no_report_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / REPORT).write_text("{}", "utf-8")
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(DataError, match="is not a report"):
            read_report(path)
