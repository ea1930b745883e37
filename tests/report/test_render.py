import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from pydantic import JsonValue

from components.core.metrics import Metrics
from components.report import Figure, ReportConfig, Table
from components.report.charts import draw_charts
from components.report.figures import draw
from components.report.formats import with_spread
from components.report.measured import Measured, PictureFile
from components.report.render import render_html, render_markdown
from components.report.results import Report
from components.report.summary import summarise
from components.report.text import summary_table_text

Make = Callable[..., Measured]
HOSTILE = """"><img src=x onerror='alert(1)'>|`*_[x](https://evil.example)</script><script>"""
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A page as its elements, with the text of each table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tr" in self.open:
            self.rows[-1] += data


def _html(report: Report, picture: bytes = b"") -> str:
    return render_html(
        report,
        {figure.key: draw(figure) for figure in report.figures},
        {key: chart for table in report.tables for key, chart in draw_charts(table).items()},
        {sheet.file: picture for table in report.tables for sheet in table.sheets},
    )


@pytest.fixture
def report(
    inaturalist: Table,
    linear: Table,
    lvis: Table,
    figure_a1: Figure,
    ablation_metrics: dict[str, Metrics],
    measured: Make,
) -> Report:
    found = {key: measured(m.curves, **m.values) for key, m in ablation_metrics.items()}
    found |= {
        "inaturalist__random__r50__0": measured(top1=61.9),
        "inaturalist__supervised__r50__0": measured(top1=66.0),
        "inaturalist__supervised__r50__1": measured(top1=66.3),
        "linear__moco_in1m__r50__0": measured(top1=60.4, acc5=80.0),
        "lvis__moco_in1m__2x__0": measured(ap=24.2, ap50=37.5, ap75=25.4),
        "voc__random__c4__0": measured(ap=33.8),
    }
    return summarise(ReportConfig(tables=(inaturalist, linear, lvis), figures=(figure_a1,)), found)


def test_the_page_is_well_formed_and_all_its_links_lead_somewhere(report: Report) -> None:
    page = Page(_html(report))

    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    links = {a["href"] for tag, a in page.elements if tag == "a"}
    assert {link for link in links if link and link.removeprefix("#") not in ids} == set()


def test_the_page_fetches_nothing(report: Report) -> None:
    text = _html(report)

    for _, attributes in Page(text).elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?(.)", text))


def test_every_number_of_the_data_is_in_the_page_and_in_the_markdown(report: Report) -> None:
    rows = Page(_html(report)).rows
    markdown = [line for line in render_markdown(report).splitlines() if line.startswith("|")]

    seen = 0
    for table in report.tables:
        for row in table.rows:
            for cell in row.cells:
                for value in cell.values:
                    published = with_spread(value.published, value.published_spread, value.decimals)
                    measured = with_spread(value.measured, value.deviation, value.decimals)
                    for lines in (rows, markdown):
                        named = [line for line in lines if row.name in line]
                        expected = [published] if value.measured is None else [published, measured]
                        plain = [" ".join(line.replace("±", " ± ").split()) for line in named]
                        assert any(all(t in line for t in expected) for line in plain), expected
                    seen += value.measured is not None
    assert seen == 6


def test_an_empty_cell_shows_its_command_letter_for_letter(report: Report, lvis: Table) -> None:
    command = lvis.fill("supervised_tuned", "1x")

    assert f'<code class="command">{command}</code>' in _html(report)
    assert f"`{command}`" in render_markdown(report)


def test_why_a_row_cannot_be_had_stands_beside_its_published_value(report: Report) -> None:
    _, *rows = [row for row in Page(_html(report)).rows if "MoCo IG-1B" in row]

    assert len(rows) == 3
    assert all("the IG-1B images are not public" in row for row in rows)
    assert "65.8" in rows[0]
    assert "not obtainable: the IG-1B images are not public" in render_markdown(report)


def test_an_overview_has_a_line_for_each_column_and_compares_what_tables_share(
    report: Report,
) -> None:
    rows = [" ".join(row.split()) for row in Page(_html(report)).rows]

    head = rows.index("table random init.MoCo IN-1MMoCo IG-1Btrials")
    columns = sum(len(table.columns) for table in report.tables)
    lines = rows[head + 1 : head + 1 + columns]
    assert all(table.title in " ".join(lines) for table in report.tables)
    (inaturalist,) = (line for line in lines if "iNaturalist" in line)
    assert "61.9" in inaturalist
    assert "61.8" in inaturalist


def test_what_a_trial_lacks_is_said_in_every_form(report: Report) -> None:
    note = "trial 0 has no value 'top5'; it has acc5, top1"

    assert any(note in row for row in Page(_html(report)).rows)
    assert note in render_markdown(report)


def test_gaps_of_half_a_point_are_green_as_in_the_paper(report: Report) -> None:
    text = _html(report)

    assert '<span class="gap green">(+0.9)</span>' in text
    assert '<span class="gap">(−0.5)</span>' in text
    assert "(**+0.9**)" in render_markdown(report)


def test_a_number_leads_to_config_code_image_weights_and_data(report: Report) -> None:
    for text in (_html(report), render_markdown(report)):
        for fact in ("base_lr", "c0de" * 16, "0" * 40, "11" * 32, "ba" * 32, "imagenet"):
            assert fact in text


def test_measurements_that_nothing_asks_for_are_listed(report: Report) -> None:
    assert "voc__random__c4__0" in _html(report)
    assert r"voc\_\_random\_\_c4\_\_0" in render_markdown(report)


def test_hostile_names_stay_text(
    inaturalist: Table,
    figure_a1: Figure,
    measured: Make,
    ablation_metrics: dict[str, Metrics],
    picture: Callable[..., PictureFile],
    photograph: Callable[[], bytes],
) -> None:
    table = inaturalist.model_dump(mode="json")
    for field in ("title", "section", "source", "command"):
        table[field] = HOSTILE
    table["notes"] = [HOSTILE]
    for part in ("rows", "columns", "metrics"):
        for one in table[part]:
            one["name"] = HOSTILE
    table["rows"][3]["unobtainable"] = HOSTILE
    table["published"][0]["source"] = HOSTILE
    figure = figure_a1.model_dump(mode="json")
    for field in ("title", "section", "x_name", "y_name", "command"):
        figure[field] = HOSTILE
    for curve in figure["curves"]:
        curve["name"] = HOSTILE
    config = ReportConfig(title=HOSTILE).derive(tables=[table], figures=[figure])
    found = {key: measured(m.curves, **m.values) for key, m in ablation_metrics.items()}
    found["inaturalist__random__r50__0"] = measured(
        {"loss": [(1.0, 2.0)]},
        {"library": HOSTILE, "library_version": HOSTILE, "captions": {"sheet": HOSTILE}},
        {HOSTILE: {"top1": 1.0}},
        (picture(photograph()),),
        **{"top1": 1.0, HOSTILE: 2.0},
    )
    found["inaturalist__supervised__r50__0"] = measured(details={"library": "torchvision"}, top1=1)
    found["other"] = measured(**{HOSTILE: 2.0})

    report = summarise(config, found)
    tags = Counter(tag for tag, _ in Page(_html(report, photograph())).elements)
    assert tags["img"] == 1
    assert tags["script"] == 1
    markdown = render_markdown(report)
    outside_code = re.sub(r"(`+).*?(?<!`)\1(?!`)", "", markdown.replace("\\`", ""))
    assert "<img" not in outside_code
    assert not re.search(r"(?<!\\)\]\(https:", outside_code)


def test_the_miniature_says_so_and_shows_no_difference(inaturalist: Table, measured: Make) -> None:
    found = {"inaturalist__random__r50__0": measured(top1=61.9)}
    report = summarise(ReportConfig(scale="digits", tables=(inaturalist,)), found)

    for text in (_html(report), render_markdown(report)):
        assert "This is the miniature" in text
        assert not re.search(r">difference<|\| difference|\[61\.9\].*\+0\.1", text)


def test_a_number_says_which_model_library_made_it(inaturalist: Table, measured: Make) -> None:
    details = {"library": "torchvision", "library_version": "0.29"}
    key = inaturalist.cell("random", "r50", 0)
    other = inaturalist.cell("moco_in1m", "r50", 0)
    config = ReportConfig(tables=(inaturalist,))
    one = summarise(config, {key: measured(details=details, top1=61.0)})
    two = summarise(
        config,
        {
            key: measured(details=details, top1=61.0),
            other: measured(details={"library": "detectron2"}, top1=65.0),
        },
    )

    for text in (_html(one), render_markdown(one)):
        assert "Model library: torchvision 0.29" in text
        assert "Not comparable" not in text
        trial = text.split("trial 0", 1)[1]
        assert "torchvision 0.29" in trial[: trial.index("classification.inaturalist.metrics")]
    for text in (_html(two), render_markdown(two)):
        assert "Not comparable: these numbers come from different model libraries" in text
        assert "detectron2 (MoCo IN-1M); torchvision 0.29 (random init.)" in text


def test_rows_of_encoders_of_different_sizes_are_marked(inaturalist: Table, measured: Make) -> None:
    small: dict[str, JsonValue] = {"architecture": "resnet50", "parameters": 23_508_032}
    large: dict[str, JsonValue] = {"architecture": "resnet101", "parameters": 42_500_160}

    def texts(**rows: dict[str, JsonValue]) -> list[str]:
        found = {
            inaturalist.cell(row, "r50", 0): measured(encoder=encoder, top1=61.0)
            for row, encoder in rows.items()
        }
        report = summarise(ReportConfig(tables=(inaturalist,)), found)
        return [_html(report), render_markdown(report), summary_table_text(report, width=200)]

    for text in texts(random=small, moco_in1m=small):
        assert "ncoder: resnet50, 23.5 M" in text
        assert "different sizes" not in text
    for text in texts(random=small, supervised={}, moco_in1m=large):
        assert "ncoders of different sizes: " in text
        assert "resnet50, 23.5 M (random init.); not stated (super. IN-1M); resnet101, 42.5" in text
    for text in texts(random={}, moco_in1m={}):
        assert "resnet" not in text


def test_a_number_says_in_what_and_on_what_it_was_trained(
    inaturalist: Table, measured: Make
) -> None:
    v100, h200 = (
        {"precision": precision, "device": device}
        for precision, device in (("fp32", "Tesla V100"), ("bf16", "NVIDIA H200"))
    )
    keys = [inaturalist.cell(row, "r50", 0) for row in ("random", "moco_in1m")]
    config = ReportConfig(tables=(inaturalist,))
    one, two, none = (
        summarise(
            config,
            {
                key: measured(details=details, top1=61.0)
                for key, details in zip(keys, both, strict=True)
            },
        )
        for both in ((h200, h200), (v100, h200), ({}, {}))
    )

    for render in (_html, render_markdown):
        assert "Trained in bf16 on NVIDIA H200" in render(one)
        words = "bf16 on NVIDIA H200 (MoCo IN-1M); fp32 on Tesla V100 (random init.)"
        assert f"Trained in {words}" in render(two)
        assert "Trained in" not in render(none)


def test_a_report_on_nothing_is_a_page_too() -> None:
    report = summarise(ReportConfig(), {})

    Page(_html(report))
    assert render_markdown(report).startswith("# MoCo transfer experiments")
