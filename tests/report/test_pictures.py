import base64
import re
from collections.abc import Callable

from components.report import ReportConfig, Table
from components.report.charts import Chart, draw_charts
from components.report.measured import Measured, PictureFile
from components.report.pictures import PAGE, PICTURE, PICTURES, fit
from components.report.render import render_html, render_markdown
from components.report.results import Report
from components.report.summary import summarise

Make = Callable[..., Measured]
MakePicture = Callable[..., PictureFile]


def _report(table: Table, tables: int, found: Callable[[str], Measured]) -> Report:
    copies = tuple(table.derive(key=f"t{number}") for number in range(tables))
    cells = [
        one.cell(row.key, column.key, 0)
        for one in copies
        for row in one.rows
        for column in one.columns
    ]
    return summarise(ReportConfig(tables=copies), {key: found(key) for key in cells})


def test_pictures_are_in_the_page_bit_for_bit(
    lvis: Table, measured: Make, picture: MakePicture, photograph: Callable[..., bytes]
) -> None:
    content = photograph()
    report = _report(lvis, 1, lambda key: measured(pictures=(picture(content),), AP=1.0))
    contents = {sheet.file: content for sheet in report.tables[0].sheets}

    page = render_html(report, {}, pictures=contents)

    uris = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(uri) for uri in uris] == [content] * 8
    assert len(re.findall(r'decoding="async" alt="[^"]+MoCo IN-1M: sheet"', page)) == 2


def test_a_large_picture_is_named_with_where_it_lies(
    lvis: Table, measured: Make, picture: MakePicture
) -> None:
    contents = {"moco_in1m": bytes(PICTURE + 1), "supervised_tuned": bytes(PICTURE)}
    found = {
        lvis.cell(row, "1x", 0): measured(pictures=(picture(content),), AP=1.0)
        for row, content in contents.items()
    }
    report = summarise(ReportConfig(tables=(lvis,)), found)
    pictures = {sheet.file: contents[sheet.row] for sheet in report.tables[0].sheets}

    page = render_html(report, {}, pictures=pictures)

    assert page.count("<img") == 1
    assert "<code>pictures/lvis__moco_in1m__1x__0__sheet.png</code> beside this page" in page
    assert render_markdown(report).count("](pictures/") == 2


def test_a_page_with_too_many_pictures_stays_small_and_gives_each_table_some(
    lvis: Table, measured: Make, picture: MakePicture
) -> None:
    content = bytes(PICTURE)
    report = _report(lvis, 5, lambda key: measured(pictures=(picture(content),), AP=1.0))
    sheets = [sheet for table in report.tables for sheet in table.sheets]

    page = render_html(report, {}, pictures={sheet.file: content for sheet in sheets})

    assert 0.9 * PICTURES < len(page.encode()) < PAGE
    shown = {sheet.file for sheet in sheets} - set(re.findall(r"<code>(pictures/[^<]+)<", page))
    assert len(shown) == page.count("<img") == 19
    assert {file.split("__")[2] for file in shown} == {"1x"}
    assert {file.split("__")[0].removeprefix("pictures/") for file in shown} == {
        f"t{number}" for number in range(5)
    }


def test_a_page_that_is_long_already_takes_fewer_pictures(
    lvis: Table, measured: Make, picture: MakePicture
) -> None:
    content = bytes(PICTURE)
    long = lvis.derive(notes=["n" * 500_000])
    report = _report(long, 5, lambda key: measured(pictures=(picture(content),), AP=1.0))
    sheets = [sheet for table in report.tables for sheet in table.sheets]

    page = render_html(report, {}, pictures={sheet.file: content for sheet in sheets})

    assert 0.9 * PAGE < len(page.encode()) < PAGE


def test_charts_beyond_their_share_are_named_with_where_they_lie(
    inaturalist: Table, measured: Make
) -> None:
    report = _report(inaturalist, 3, lambda key: measured({"loss": [(1.0, 2.0)]}, top1=1.0))
    charts = {key: one for table in report.tables for key, one in draw_charts(table).items()}
    large = {
        key: Chart(one.svg, one.png, one.inline + " " * 400_000) for key, one in charts.items()
    }

    page = render_html(report, {}, large)

    assert re.findall(r"<code>(figures/[^<]+)</code>", page) == ["figures/training__t2__r50.svg"]


def test_the_first_parts_that_fit_are_kept() -> None:
    parts = {"a": "x" * 1000, "b": "é" * 500, "c": "x", "d": "x"}

    assert list(fit(parts, 4000)) == ["a", "b"]
    assert fit(parts, 0) == {}
    assert fit({}, 10) == {}
