"""Appendix A.2: keypoint detection on COCO, also in Table 6."""

from components.detection.keypoints import STAGE as KEYPOINTS
from components.detection.keypoints import keypoint_rcnn
from components.report import Column, Metric, Table
from pipelines.recipes._shared import (
    INITIALISATIONS,
    one_table,
    published,
    training,
)

TABLE = Table(
    key="keypoints",
    title="COCO keypoint detection, Mask R-CNN R50-FPN (keypoint version)",
    section="Appendix A.2, Table 6",
    source="main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(Column(key="2x", name="2× schedule"),),
    metrics=(
        Metric(key="keypoint_AP", name="AP"),
        Metric(key="keypoint_AP50", name="AP50"),
        Metric(key="keypoint_AP75", name="AP75"),
    ),
    published=published(
        "2x",
        random=(65.9, 86.5, 71.7),
        supervised=(65.8, 86.9, 71.9),
        moco_in1m=(66.8, 87.4, 72.5),
        moco_ig1b=(66.9, 87.8, 73.0),
    ),
    command="moco run keypoints --rows {row} --trials {trials}",
)

measure = training(
    TABLE,
    KEYPOINTS,
    data="coco",
    config=lambda cell: keypoint_rcnn().derive(seed=cell.trial),
)

RECIPE = one_table("keypoints", "Appendix A.2: COCO keypoint detection", measure)
