"""Appendix A.4: instance segmentation on LVIS v0.5, also in Table 6."""

from collections.abc import Mapping
from typing import Literal

from components.detection.lvis import STAGE as LVIS
from components.detection.lvis import mask_rcnn
from components.report import Column, Metric, Published, Row, Table
from pipelines.plan import Plan, Source
from pipelines.recipes import Options
from pipelines.recipes._shared import (
    MOCO_IG1B,
    MOCO_IN1M,
    RANDOM,
    SUPERVISED,
    PlannedTrial,
    backbone,
    chosen,
    one_table,
    published,
    train_cells,
)

FROZEN = Row(key="supervised_frozen", name="super. IN-1M, BN frozen")

TABLE = Table(
    key="lvis",
    title="LVIS v0.5 instance segmentation, Mask R-CNN R50-FPN",
    section="Appendix A.4, Table 6",
    source="appendix",
    rows=(
        RANDOM,
        FROZEN,
        SUPERVISED.derive(name="super. IN-1M, BN tuned"),
        MOCO_IN1M,
        MOCO_IG1B,
    ),
    columns=(Column(key="1x", name="1× schedule"), Column(key="2x", name="2× schedule")),
    metrics=(
        Metric(key="mask_AP", name="AP"),
        Metric(key="mask_AP50", name="AP50"),
        Metric(key="mask_AP75", name="AP75"),
    ),
    published=(
        *published(
            "1x",
            supervised_frozen=(24.1, 37.3, 25.4),
            supervised=(23.5, 36.6, 24.8),
            moco_in1m=(23.2, 36.0, 24.7),
            moco_ig1b=(24.3, 37.4, 25.9),
        ),
        *published(
            "2x",
            supervised_frozen=(24.4, 37.8, 25.8),
            supervised=(23.2, 36.0, 24.4),
            moco_in1m=(24.1, 37.4, 25.5),
            moco_ig1b=(24.9, 38.2, 26.4),
        ),
        Published(
            row="random",
            column="2x",
            values=(22.5, 34.8, 23.8),
            source="Table 6 of the main paper, transcribed; the better of both schedules",
        ),
    ),
    trials=5,
    command="moco run lvis --rows {row} --columns {column} --trials {trials}",
    notes=(
        "Batch norm is tuned unless a row says frozen; gaps are to the supervised row with tuned "
        "norm.",
    ),
)


LENGTHS: Mapping[str, Literal["1x", "2x"]] = {"1x": "1x", "2x": "2x"}


def measure(plan: Plan, options: Options) -> tuple[Table, dict[str, Source]]:
    """Add a training for every chosen cell; return the table and the metrics."""
    table = chosen(TABLE, options)

    def initial(cell: PlannedTrial) -> Source:
        row = SUPERVISED.key if cell.row == FROZEN.key else cell.row
        return backbone(plan, options, row, cell.trial)

    return table, train_cells(
        plan,
        options,
        table,
        LVIS,
        data="lvis",
        config=lambda cell: mask_rcnn(
            "frozen" if cell.row == FROZEN.key else "tuned", LENGTHS[cell.column]
        ).derive(seed=cell.trial),
        initial=initial,
    )


RECIPE = one_table("lvis", "Appendix A.4: LVIS v0.5 instance segmentation", measure)
