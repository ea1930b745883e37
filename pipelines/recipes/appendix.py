"""The whole appendix: every table and figure, sharing data, pre-trainings and conversions."""

from pipelines.plan import Plan, Source
from pipelines.recipes import (
    Options,
    Recipe,
    imagenet,
    inaturalist,
    linear,
    shuffling_bn,
)
from pipelines.recipes._shared import report

TABLES = (linear, inaturalist, imagenet)  # and shuffling BN, which has a figure besides


def build(options: Options) -> Plan:
    """Plan all tables and one report over them."""
    plan = Plan("appendix", options.scale)
    tables = []
    metrics: dict[str, Source] = {}
    for recipe in TABLES:
        table, measured = recipe.measure(plan, options)
        tables.append(table)
        metrics |= measured
    table, figure, measured = shuffling_bn.measure(plan, options)
    report(plan, options, [*tables, table], metrics | measured, [figure])
    return plan


RECIPE = Recipe(
    "appendix", "The appendix: all tables and its figure, in one run with one report", build
)
