"""Tables 5 and A.1: Mask R-CNN on COCO with both backbones, in one report."""

from pipelines.recipes import coco_c4, coco_fpn
from pipelines.recipes._shared import several_tables

RECIPE = several_tables(
    "coco", "Tables 5 and A.1: COCO, R50-FPN and R50-C4", [coco_fpn.measure, coco_c4.measure]
)
