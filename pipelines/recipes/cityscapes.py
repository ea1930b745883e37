"""Table 6: instance segmentation on Cityscapes."""

from components.detection.cityscapes import STAGE as CITYSCAPES
from components.detection.cityscapes import mask_rcnn
from components.report import Column, Metric, Table
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    published,
    training,
)

TABLE = Table(
    key="cityscapes",
    title="Cityscapes instance segmentation, Mask R-CNN R50-FPN",
    section="Table 6",
    source="main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(Column(key="fine", name="train_fine, val"),),
    metrics=(Metric(key="mask_AP", name="AP"), Metric(key="mask_AP50", name="AP50")),
    published=published(
        "fine",
        random=(25.4, 51.1),
        supervised=(32.9, 59.6),
        moco_in1m=(32.3, 59.3),
        moco_ig1b=(32.9, 60.3),
    ),
    command="moco run cityscapes --rows {row} --trials {trials}",
)

measure = training(
    TABLE,
    CITYSCAPES,
    data="cityscapes",
    config=lambda cell: mask_rcnn().derive(seed=cell.trial),
)

RECIPE = one_table("cityscapes", "Table 6: Cityscapes instance segmentation", measure)
