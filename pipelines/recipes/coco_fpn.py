"""Tables 5 and A.1: Mask R-CNN with an R50-FPN on COCO, three schedules (Sec. 4.2, A.8)."""

from components.detection.coco import STAGE as COCO
from components.detection.coco import mask_rcnn_fpn
from components.report import Column, Table
from pipelines.recipes._shared import (
    BOXES_AND_MASKS,
    INITIALISATIONS,
    one_table,
    published,
    training,
)

TABLE = Table(
    key="coco_fpn",
    title="COCO object detection and instance segmentation, Mask R-CNN R50-FPN",
    section="Tables 5a, 5b and A.1",
    source="appendix (2× and 6×); the 1× numbers: main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(
        Column(key="1x", name="1× schedule"),
        Column(key="2x", name="2× schedule"),
        Column(key="6x", name="6× schedule"),
    ),
    metrics=BOXES_AND_MASKS,
    published=(
        *published(
            "1x",
            random=(31.0, 49.5, 33.2, 28.5, 46.8, 30.4),
            supervised=(38.9, 59.6, 42.7, 35.4, 56.5, 38.1),
            moco_in1m=(38.5, 58.9, 42.0, 35.1, 55.9, 37.7),
            moco_ig1b=(38.9, 59.4, 42.3, 35.4, 56.5, 37.9),
        ),
        *published(
            "2x",
            random=(36.7, 56.7, 40.0, 33.7, 53.8, 35.9),
            supervised=(40.6, 61.3, 44.4, 36.8, 58.1, 39.5),
            moco_in1m=(40.8, 61.6, 44.7, 36.9, 58.4, 39.7),
            moco_ig1b=(41.1, 61.8, 45.1, 37.4, 59.1, 40.2),
        ),
        *published(
            "6x",
            random=(41.4, 61.9, 45.1, 37.6, 59.1, 40.3),
            supervised=(41.9, 62.5, 45.6, 38.0, 59.6, 40.8),
            moco_in1m=(42.3, 62.7, 46.2, 38.3, 60.1, 41.2),
            moco_ig1b=(42.8, 63.2, 47.0, 38.7, 60.5, 41.3),
        ),
    ),
    command="moco run coco_fpn --rows {row} --columns {column} --trials {trials}",
    notes=(
        "Independent re-runs get higher baselines than the paper's (super. 1× 39.7, random 6× "
        "42.7): judge a row beside the random and supervised rows that you measured.",
    ),
)

CONFIGS = {"1x": mask_rcnn_fpn("1x"), "2x": mask_rcnn_fpn("2x"), "6x": mask_rcnn_fpn("6x")}

measure = training(
    TABLE,
    COCO,
    data="coco",
    config=lambda cell: CONFIGS[cell.column].derive(seed=cell.trial),
)

RECIPE = one_table("coco_fpn", "Tables 5 and A.1: COCO, Mask R-CNN R50-FPN", measure)
