"""The whole appendix: every table and figure, sharing data, pre-trainings and conversions."""

from pipelines.plan import Plan
from pipelines.recipes import (
    Options,
    Recipe,
    cityscapes,
    coco_c4,
    coco_fpn,
    densepose,
    imagenet,
    inaturalist,
    keypoints,
    linear,
    lvis,
    segmentation,
    shuffling_bn,
    voc,
)
from pipelines.recipes._shared import measure_all, report

TABLES = (
    *(linear, voc, coco_fpn, coco_c4, keypoints, densepose, lvis, cityscapes, segmentation),
    *(inaturalist, imagenet),  # and shuffling BN, which has a figure besides
)


def build(options: Options) -> Plan:
    """Plan all tables and one report over them."""
    plan = Plan("appendix", options.scale)
    tables, metrics = measure_all(plan, options, [recipe.measure for recipe in TABLES])
    table, figure, measured = shuffling_bn.measure(plan, options)
    report(plan, options, [*tables, table], metrics | measured, [figure])
    return plan


RECIPE = Recipe(
    "appendix", "The appendix: all tables and its figure, in one run with one report", build
)
