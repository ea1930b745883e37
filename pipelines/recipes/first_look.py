"""A first look at every kind of task: one column of a table each, minutes in miniature."""

from dataclasses import replace

from pipelines.plan import Plan
from pipelines.recipes import (
    Options,
    Recipe,
    Setting,
    coco_fpn,
    densepose,
    keypoints,
    linear,
    segmentation,
    voc,
)
from pipelines.recipes._shared import measure_all, report

SHORTER = (
    *(
        Setting(f"detection.{name}", field, value)
        for name in ("coco", "densepose", "keypoints", "voc")
        for field, value in (("iterations", "80"), ("evaluations", "1"))
    ),
    Setting("segmentation", "iterations", "120"),
    Setting("segmentation", "evaluations", "1"),
    Setting("classification.linear", "epochs", "3"),
)
"""Of the miniature: it shows that all of it works and what a report looks like, in minutes. What is
learned takes the tables' own recipes."""
NOTE = (
    "A first look: trained just long enough to see all of it work, so that the order of the rows "
    "may be chance. The recipe of the table trains longer."
)
TABLES = (linear, voc, coco_fpn, keypoints, densepose, segmentation)
COLUMNS = ("c4", "1x", "voc")


def build(options: Options) -> Plan:
    """Plan the chosen columns of the tables, and one report over them."""
    plan = Plan("first_look", options.scale)
    options = replace(options, columns=options.columns or COLUMNS)
    if options.scale == "digits":
        options = replace(options, settings=(*SHORTER, *options.settings))
    tables, metrics = measure_all(plan, options, [recipe.measure for recipe in TABLES])
    if options.scale == "digits":
        tables = [table.derive(notes=(*table.notes, NOTE)) for table in tables]
    report(plan, options, tables, metrics)
    return plan


RECIPE = Recipe("first_look", "A first look: one column of each kind of task", build)
