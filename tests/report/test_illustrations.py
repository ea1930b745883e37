import math
from collections.abc import Callable, Mapping

import pytest
from pydantic import JsonValue

from components.report import Metric, ReportConfig, Table
from components.report.illustrations import CLASSES, POINTS
from components.report.measured import Measured, PictureFile
from components.report.results import TableResult
from components.report.summary import summarise

Make = Callable[..., Measured]


def _table(table: Table, found: Mapping[str, Measured]) -> TableResult:
    return summarise(ReportConfig(tables=(table,)), found).tables[0]


@pytest.fixture
def coco(lvis: Table) -> Table:
    """Return a table whose metrics are called as the evaluation calls them."""
    metrics = [Metric(key=name, name=name).model_dump() for name in ("AP50", "AP", "AP75")]
    return lvis.derive(key="coco", metrics=metrics)


def test_every_cell_shows_the_first_picture_of_its_first_trial(
    lvis: Table, measured: Make, picture: Callable[..., PictureFile]
) -> None:
    found = {
        lvis.cell("moco_in1m", "1x", 1): measured(pictures=(picture(b"second trial"),)),
        lvis.cell("moco_in1m", "1x", 0): measured(
            pictures=(picture(b"first", "boxes"), picture(b"other", "masks")),
            details={"captions": {"boxes": "image | prediction", "masks": "other"}},
        ),
        lvis.cell("supervised_tuned", "2x", 0): measured(pictures=(picture(b"2x"),)),
        lvis.cell("moco_in1m", "2x", 0): measured(),
    }

    first, second = _table(lvis, found).sheets

    assert (first.row, first.column, first.name) == ("moco_in1m", "1x", "boxes")
    assert first.caption == "image | prediction"
    assert first.file == "pictures/lvis__moco_in1m__1x__0__boxes.png"
    assert (first.width, first.height, first.size) == (48, 36, len(b"first"))
    assert (second.row, second.column, second.caption) == ("supervised_tuned", "2x", None)


def test_bars_are_means_over_the_trials_of_the_tables_first_metric_that_classes_have(
    coco: Table, measured: Make
) -> None:
    found = {
        coco.cell("moco_in1m", "1x", 0): measured(
            classes={"cat": {"images": 9, "AP": 40.0, "IoU": 1.0}, "dog": {"AP": None}}
        ),
        coco.cell("moco_in1m", "1x", 1): measured(classes={"cat": {"images": 9, "AP": 50.0}}),
        coco.cell("supervised_tuned", "1x", 0): measured(
            classes={"cat": {"images": 9, "AP": 10.0}, "bird": {"images": 3, "AP": 20.0}}
        ),
    }

    (bars,) = _table(coco, found).per_class

    assert (bars.metric, bars.column, bars.left_out) == ("AP", "1x", 0)
    assert set(bars.classes) == {"cat", "bird"}
    values = {one.name: dict(zip(bars.classes, one.values, strict=True)) for one in bars.series}
    assert values == {
        "super. IN-1M, BN tuned": {"cat": 10.0, "bird": 20.0},
        "MoCo IN-1M": {"cat": 45.0, "bird": None},
    }


def test_a_table_whose_metric_the_classes_call_otherwise_shows_their_first_that_is_no_count(
    inaturalist: Table, measured: Make
) -> None:
    found = {
        inaturalist.cell("random", "r50", 0): measured(
            classes={"road": {"images": 9, "IoU": 40.0, "iIoU": 30.0}}
        )
    }

    (bars,) = _table(inaturalist, found).per_class

    assert (bars.metric, bars.series[0].values) == ("IoU", (40.0,))


@pytest.mark.parametrize("count", ["images", "instances"])
def test_of_many_classes_the_most_frequent_are_drawn_in_the_data_sets_order(
    count: str, coco: Table, measured: Make
) -> None:
    classes = {f"{index:03}": {count: index % 50, "AP": float(index)} for index in range(100)}
    found = {coco.cell("moco_in1m", "1x", 0): measured(classes=classes)}

    (bars,) = _table(coco, found).per_class

    expected = [f"{index:03}" for index in range(100) if index % 50 >= 35]
    assert len(expected) == CLASSES
    assert (list(bars.classes), bars.left_out) == (expected, 70)


def test_lvis_is_drawn_by_how_frequent_a_class_is(coco: Table, measured: Make) -> None:
    masks = coco.derive(metrics=[Metric(key="mask_AP", name="mask AP").model_dump()], published=[])
    groups = {"mask_APr": 10.0, "mask_APc": 20.0, "mask_APf": 30.0}
    boxes = {"APr": 1.0, "APc": 2.0, "APf": 3.0}
    found = {
        coco.cell("moco_in1m", "1x", trial): measured(
            AP=2.0, mask_AP=25.0, **groups, **boxes, classes={"aerosol can": {"mask_AP": 1.0}}
        )
        for trial in range(2)
    } | {coco.cell("supervised_tuned", "1x", 0): measured(mask_APc=5.0, mask_APf=6.0)}

    (bars,) = _table(masks, found).per_class

    assert (bars.metric, bars.classes) == ("mask AP", ("rare", "common", "frequent"))
    assert [one.values for one in bars.series] == [(None, 5.0, 6.0), (10.0, 20.0, 30.0)]


def test_training_curves_are_the_first_trials_thinned_out_but_for_their_ends(
    coco: Table, measured: Make
) -> None:
    loss = [(float(x), math.nan if x == 5 else 1 / x) for x in range(1, 1001)]
    followed = [(float(x), 30.0 + x) for x in range(4)]
    found = {
        coco.cell("moco_in1m", "1x", 0): measured({"loss": loss, "AP75": followed}),
        coco.cell("moco_in1m", "1x", 1): measured({"loss": [(1.0, 7.0)]}),
        coco.cell("supervised_tuned", "1x", 0): measured({"loss": loss[:10]}),
    }

    (chart,) = _table(coco, found).training

    top, bottom = chart.panels
    assert (top.name, bottom.name) == ("loss", "AP75")
    assert [curve.name for curve in top.curves] == ["super. IN-1M, BN tuned", "MoCo IN-1M"]
    assert [curve.points for curve in bottom.curves] == [tuple(followed)]
    short, long = (curve.points for curve in top.curves)
    assert short == tuple(loss[:4] + loss[5:10])
    assert POINTS / 2 < len(long) <= POINTS
    assert long[-1] == loss[-1]
    assert set(long) < set(loss)


def test_a_table_of_figures_alone_has_no_illustrations(inaturalist: Table, measured: Make) -> None:
    table = _table(inaturalist, {inaturalist.cell("random", "r50", 0): measured(top1=61.0)})

    assert (table.sheets, table.per_class, table.training, table.remarks) == ((), (), (), ())


def test_cells_of_two_model_libraries_are_told_apart(lvis: Table, measured: Make) -> None:
    cells = [lvis.cell("moco_in1m", "1x", 0), lvis.cell("supervised_tuned", "1x", 0)]

    def made_by(*libraries: dict[str, JsonValue]) -> TableResult:
        made = [measured(details=library) for library in libraries]
        return _table(lvis, dict(zip(cells, made, strict=True)))

    detectron2: dict[str, JsonValue] = {"library": "detectron2", "library_version": "0.6"}
    torchvision: dict[str, JsonValue] = {"library": "torchvision"}
    one = made_by(detectron2, detectron2)
    versions = made_by(torchvision | {"library_version": "0.29"}, torchvision)
    two = made_by(detectron2, torchvision | {"library_version": "0.29"})
    silent = made_by(detectron2, {})

    assert (one.made_by, one.mixed) == ("detectron2 0.6", False)
    assert one.rows[2].cells[0].trials[0].library_version == "0.6"
    assert not versions.mixed
    assert versions.made_by == (
        "torchvision (super. IN-1M, BN tuned, 1× schedule); "
        "torchvision 0.29 (MoCo IN-1M, 1× schedule)"
    )
    assert two.mixed
    assert "torchvision 0.29 (super. IN-1M, BN tuned, 1× schedule)" in two.made_by
    assert not silent.mixed
    assert "not stated (super. IN-1M, BN tuned, 1× schedule)" in silent.made_by
    assert made_by({}, {}).made_by == ""
