"""Appendix A.5: semantic segmentation on PASCAL VOC and Cityscapes."""

from components.report import Column, Metric, Table
from components.segmentation import STAGE as SEGMENTATION
from components.segmentation import cityscapes, voc
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    published,
    training,
)

TABLE = Table(
    key="segmentation",
    title="Semantic segmentation, FCN on ResNet-50",
    section="Appendix A.5, Table 6",
    source="main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(
        Column(key="voc", name="PASCAL VOC"),
        Column(key="cityscapes", name="Cityscapes"),
    ),
    metrics=(Metric(key="mIoU", name="mIoU"),),
    published=(
        *published("voc", random=(39.5,), supervised=(74.4,), moco_in1m=(72.5,), moco_ig1b=(73.6,)),
        *published(
            "cityscapes", random=(65.3,), supervised=(74.6,), moco_in1m=(75.3,), moco_ig1b=(75.5,)
        ),
    ),
    trials=5,
    command="moco run segmentation --rows {row} --columns {column} --trials {trials}",
)

CONFIGS = {"voc": voc, "cityscapes": cityscapes}

measure = training(
    TABLE,
    SEGMENTATION,
    config=lambda cell: CONFIGS[cell.column]().derive(seed=cell.trial),
)

RECIPE = one_table("segmentation", "Appendix A.5: semantic segmentation by an FCN", measure)
