"""Table 6: MoCo beside ImageNet supervision on all other tasks, in one report."""

from pipelines.recipes import cityscapes, densepose, keypoints, lvis, segmentation
from pipelines.recipes._shared import several_tables

RECIPE = several_tables(
    "other_tasks",
    "Table 6: keypoints, dense pose, LVIS, Cityscapes and segmentation",
    [module.measure for module in (keypoints, densepose, lvis, cityscapes, segmentation)],
)
