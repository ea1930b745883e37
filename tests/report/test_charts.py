import io
import re
from xml.etree import ElementTree

import pytest
from PIL import Image

from components.report import Column, Metric
from components.report.charts import draw_charts
from components.report.figures import PALETTE
from components.report.illustrations import CLASSES, POINTS
from components.report.pictures import CHARTS
from components.report.results import (
    BarChart,
    BarSeries,
    CurveResult,
    Panel,
    TableResult,
    TrainingChart,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '_<b> $x$ 1.23456 "'


@pytest.fixture
def table() -> TableResult:
    bars = BarChart(
        key="per_class__t__c",
        column="c",
        metric="AP",
        classes=("cat", HOSTILE),
        series=(
            BarSeries(name="random init.", colour=0, values=(40.0, None)),
            BarSeries(name=HOSTILE, colour=1, values=(20.0, 10.0)),
        ),
    )
    curves = tuple(
        CurveResult(name=name, style="solid", colour=colour, points=((1.0, 3.0), (2.0, 1.5)))
        for colour, name in enumerate(("random init.", HOSTILE))
    )
    training = TrainingChart(
        key="training__t__c",
        column="c",
        x_name="epoch",
        panels=(Panel(name="loss", curves=curves), Panel(name="AP", curves=curves[:1])),
    )
    return TableResult(
        key="t",
        title="T",
        section="A",
        source="appendix",
        columns=(Column(key="c", name="C"),),
        metrics=(Metric(key="AP", name="AP"),),
        rows=(),
        per_class=(bars,),
        training=(training,),
    )


def test_a_bar_is_as_long_as_its_value_and_none_stands_for_what_is_missing(
    table: TableResult,
) -> None:
    root = ElementTree.fromstring(draw_charts(table)["per_class__t__c"].svg)

    lengths = {}
    for colour in PALETTE[:2]:
        drawn = [
            [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path.get("d") or "")]
            for path in root.iter(f"{SVG}path")
            if colour in (path.get("style") or "") and path.get("clip-path")
        ]
        lengths[colour] = [max(xs) - min(xs) for xs in drawn]
    (forty,) = lengths[PALETTE[0]]
    assert lengths[PALETTE[1]] == pytest.approx([forty / 2, forty / 4], rel=1e-4)


def test_charts_have_their_names_as_text_and_describe_themselves(table: TableResult) -> None:
    for key, word in (
        ("per_class__t__c", f"{HOSTILE}: cat 20.0, {HOSTILE} 10.0"),
        ("training__t__c", f"{HOSTILE} ends at 1.5 at epoch 2"),
    ):
        root = ElementTree.fromstring(draw_charts(table)[key].inline)
        assert {HOSTILE, "random init.", "AP"} <= {one.text for one in root.iter(f"{SVG}text")}
        assert word in (root.findtext(f"{SVG}desc") or "")


def test_charts_for_the_page_take_its_colours(table: TableResult) -> None:
    for chart in draw_charts(table).values():
        assert "var(--curve-0)" in chart.inline
        assert not any(colour in chart.inline for colour in PALETTE)
        with Image.open(io.BytesIO(chart.png)) as image:
            assert image.width > 600


def test_the_charts_of_the_largest_tables_have_room_in_the_page(table: TableResult) -> None:
    names = [f"initialisation {row}" for row in range(4)]
    values = tuple(100 / (1 + index) for index in range(CLASSES))
    points = tuple((1 + index / 7, 3 / (1 + index)) for index in range(POINTS))
    bars = table.per_class[0].model_copy(
        update={
            "classes": tuple(f"class {index}" for index in range(CLASSES)),
            "series": tuple(
                BarSeries(name=name, colour=row, values=values) for row, name in enumerate(names)
            ),
        }
    )
    curves = tuple(
        CurveResult(name=name, style="solid", colour=row, points=points)
        for row, name in enumerate(names)
    )
    panels = tuple(Panel(name=name, curves=curves) for name in ("loss", "AP"))
    training = table.training[0].model_copy(update={"panels": panels})

    drawn = draw_charts(table.model_copy(update={"per_class": (bars,), "training": (training,)}))

    sizes = {key: len(chart.inline) for key, chart in drawn.items()}
    assert all(0 < size < CHARTS / 20 for size in sizes.values()), sizes


def test_the_same_data_gives_the_same_bytes(table: TableResult) -> None:
    assert draw_charts(table) == draw_charts(table.model_copy())
