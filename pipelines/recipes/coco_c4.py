"""Tables 5c and 5d: Mask R-CNN with an R50-C4 on COCO (Sec. 4.2)."""

from components.detection.coco import STAGE as COCO
from components.detection.coco import mask_rcnn_c4
from components.report import Column, Table
from pipelines.recipes._shared import (
    BOXES_AND_MASKS,
    INITIALISATIONS,
    one_table,
    published,
    training,
)

TABLE = Table(
    key="coco_c4",
    title="COCO object detection and instance segmentation, Mask R-CNN R50-C4",
    section="Tables 5c and 5d",
    source="main paper, transcribed",
    rows=INITIALISATIONS,
    columns=(Column(key="1x", name="1× schedule"), Column(key="2x", name="2× schedule")),
    metrics=BOXES_AND_MASKS,
    published=(
        *published(
            "1x",
            random=(26.4, 44.0, 27.8, 29.3, 46.9, 30.8),
            supervised=(38.2, 58.2, 41.2, 33.3, 54.7, 35.2),
            moco_in1m=(38.5, 58.3, 41.6, 33.6, 54.8, 35.6),
            moco_ig1b=(39.1, 58.7, 42.2, 34.1, 55.4, 36.4),
        ),
        *published(
            "2x",
            random=(35.6, 54.6, 38.2, 31.4, 51.5, 33.5),
            supervised=(40.0, 59.9, 43.1, 34.7, 56.5, 36.9),
            moco_in1m=(40.7, 60.5, 44.1, 35.4, 57.3, 37.6),
            moco_ig1b=(41.1, 60.7, 44.8, 35.6, 57.4, 38.1),
        ),
    ),
    command="moco run coco_c4 --rows {row} --columns {column} --trials {trials}",
)

CONFIGS = {"1x": mask_rcnn_c4("1x"), "2x": mask_rcnn_c4("2x")}

measure = training(
    TABLE,
    COCO,
    data="coco",
    config=lambda cell: CONFIGS[cell.column].derive(seed=cell.trial),
)

RECIPE = one_table("coco_c4", "Tables 5c and 5d: COCO, Mask R-CNN R50-C4", measure)
