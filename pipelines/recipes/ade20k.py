"""ADE20K semantic segmentation, which the paper does not have: MoCo beside ImageNet supervision."""

from components.report import Column, Metric, Table
from components.segmentation import STAGE as SEGMENTATION
from components.segmentation import SegmentationConfig
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    training,
)

TABLE = Table(
    key="ade20k",
    title="ADE20K semantic segmentation, FCN on ResNet-50",
    section="ADE20K, which is not in the paper",
    source="none; the FCN of Appendix A.5, trained as long as is usual on ADE20K",
    rows=INITIALISATIONS,
    columns=(Column(key="ade20k", name="training, validation"),),
    metrics=(
        Metric(key="mIoU", name="mIoU"),
        Metric(key="pixel_accuracy", name="pixel accuracy"),
    ),
    trials=5,
    command="moco run ade20k --rows {row} --trials {trials}",
)


def fcn() -> SegmentationConfig:
    """Return the config: 80k iterations of 16 crops of 512 pixels, else as for Cityscapes (A.5)."""
    return SegmentationConfig(dataset="ade20k", iterations=80_000, lr=0.01, crop=512)


measure = training(
    TABLE,
    SEGMENTATION,
    data="ade20k",
    config=lambda cell: fcn().derive(seed=cell.trial),
)

RECIPE = one_table("ade20k", "Beyond the paper: ADE20K semantic segmentation by an FCN", measure)
