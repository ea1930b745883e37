"""Table 2: Faster R-CNN on PASCAL VOC, with an R50-dilated-C5 and an R50-C4 (Appendix A.1)."""

from components.detection.voc import STAGE as VOC
from components.detection.voc import faster_rcnn_c4, faster_rcnn_dc5
from components.report import Column, Metric, Published, Table
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    published,
    training,
)

RELEASED = "the spread is that of the released code's log, 5 trials"

TABLE = Table(
    key="voc",
    title="PASCAL VOC object detection, trainval07+12, test2007",
    section="Table 2, Appendix A.1",
    source="main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(
        Column(key="dc5", name="Faster R-CNN, R50-dilated-C5"),
        Column(key="c4", name="Faster R-CNN, R50-C4"),
    ),
    metrics=(
        Metric(key="AP50", name="AP50"),
        Metric(key="AP", name="AP"),
        Metric(key="AP75", name="AP75"),
    ),
    published=(
        *published(
            "dc5",
            random=(64.4, 37.9, 38.6),
            supervised=(81.4, 54.0, 59.1),
            moco_in1m=(81.1, 54.6, 59.9),
            moco_ig1b=(81.6, 55.5, 61.2),
        ),
        *published(
            "c4",
            random=(60.2, 33.8, 33.1),
            supervised=(81.3, 53.5, 58.8),
            moco_ig1b=(82.2, 57.2, 63.7),
        ),
        Published(
            row="moco_in1m",
            column="c4",
            values=(81.5, 55.9, 62.6),
            spread=(0.2, 0.2, 0.4),
            source=RELEASED,
        ),
    ),
    trials=5,
    command="moco run voc --rows {row} --columns {column} --trials {trials}",
    notes=(
        "AP is the mean of VOC 2007's 11-point figure over ten overlaps, as detectron2 measures "
        "it; the area under the curve is among each trial's metrics.",
    ),
)

MODELS = {"dc5": faster_rcnn_dc5, "c4": faster_rcnn_c4}

measure = training(
    TABLE,
    VOC,
    data="voc",
    config=lambda cell: MODELS[cell.column]().derive(seed=cell.trial),
)

RECIPE = one_table("voc", "Table 2: PASCAL VOC detection, dilated-C5 and C4", measure)
