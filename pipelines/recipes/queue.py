"""Figure 3: accuracy over the number of negatives, for three contrastive mechanisms (Sec. 4.1)."""

from collections.abc import Iterable, Sequence
from typing import Any

from components.classification.linear import STAGE as LINEAR
from components.classification.linear import LinearConfig
from components.pretrain import PretrainConfig
from components.report import Column, Figure, Metric, Published, Row, Table, Trend, TrendPoint
from pipelines.plan import Plan, Source
from pipelines.recipes import Options, Recipe
from pipelines.recipes._shared import (
    MOCO_IN1M,
    PlannedTrial,
    backbone,
    chosen,
    report,
    train_cells,
)

END_TO_END = Row(key="end_to_end", name="end-to-end")
MEMORY_BANK = Row(key="memory_bank", name="memory bank")
MOCO = Row(key="moco", name="MoCo")
NEGATIVES = {256: 32, 512: 64, 1024: 128, 4096: 256, 16384: 512, 65536: 1024}
"""K, and what it is in miniature."""
LARGEST_BATCH = 1024
"""End-to-end has the other keys of its batch as negatives, and a batch has to fit the GPUs."""

PAPERS = {
    ("end_to_end", 256): 54.9,
    ("end_to_end", 512): 56.3,
    ("end_to_end", 1024): 57.3,
    ("memory_bank", 65536): 58.0,
    ("moco", 4096): 59.0,
    ("moco", 65536): 60.6,
}
"""As far as they are known as numbers; Figure 3 is a drawing."""


def _table(key: str, title: str, rows: tuple[Row, ...], sizes: Sequence[int]) -> Table:
    columns = tuple(Column(key=f"k{size}", name=f"K = {size}") for size in sizes)
    return Table(
        key=key,
        title=title,
        section="Figure 3",
        source="main paper, transcribed",
        rows=rows,
        columns=columns,
        metrics=(Metric(key="top1", name="top-1"),),
        published=tuple(
            Published(row=row, column=f"k{size}", values=(value,))
            for (row, size), value in PAPERS.items()
            if f"k{size}" in {column.key for column in columns}
        ),
        command="moco run queue --rows {row} --columns {column} --trials {trials}",
        notes=(f"In miniature K is {', '.join(str(NEGATIVES[size]) for size in sizes)}.",),
    )


TABLES = (
    _table(
        "queue",
        "Negatives of three mechanisms, as many as a batch can have",
        (END_TO_END, MEMORY_BANK, MOCO),
        [size for size in NEGATIVES if size <= LARGEST_BATCH],
    ),
    _table(
        "queue_beyond",
        "Negatives beyond a batch",
        (MEMORY_BANK, MOCO),
        [size for size in NEGATIVES if size > LARGEST_BATCH],
    ),
)


def config_of(mechanism: str, size: int) -> PretrainConfig:
    """Return a mechanism's pre-training with K negatives, at full scale."""
    if mechanism == "end_to_end":
        return PretrainConfig(mechanism="end_to_end", batch_size=size)
    return PretrainConfig(mechanism=mechanism, negatives=size)


def _miniature(mechanism: str, size: int) -> dict[str, Any]:
    """Return as many negatives in miniature; end-to-end's are the batch, at a scaled rate."""
    field = "batch_size" if mechanism == "end_to_end" else "negatives"
    return {field: NEGATIVES[size]}


def build(options: Options) -> Plan:
    """Plan Figure 3: every mechanism with every number of negatives that it can have."""
    plan = Plan("queue", options.scale)

    def initial(cell: PlannedTrial) -> Source:
        size = int(cell.column.removeprefix("k"))
        if (cell.row, size) == (MOCO.key, max(NEGATIVES)):
            return backbone(plan, options, MOCO_IN1M.key)
        return backbone(
            plan,
            options,
            f"{cell.row}_{cell.column}",
            pretrained_by=config_of(cell.row, size),
            miniature=_miniature(cell.row, size),
        )

    tables = [chosen(table, options, own_rows=False) for table in TABLES]
    wanted = options.columns
    tables = [
        table
        for table in tables
        if wanted is None or {column.key for column in table.columns} & {*wanted}
    ]
    metrics: dict[str, Source] = {}
    for table in tables:
        metrics |= train_cells(
            plan,
            options,
            table,
            LINEAR,
            data="imagenet",
            config=lambda cell: LinearConfig(seed=cell.trial),
            initial=initial,
        )
    report(plan, options, tables, metrics, [figure(tables, options)])
    return plan


def figure(tables: Iterable[Table], options: Options) -> Figure:
    """Return the curves of the mechanisms over K."""
    trends = []
    for colour, row in enumerate((END_TO_END, MEMORY_BANK, MOCO)):
        points = tuple(
            TrendPoint(
                x=NEGATIVES[size] if options.scale == "digits" else size,
                cells=tuple(table.cells(row.key, column.key)),
                published=PAPERS.get((row.key, size)),
            )
            for table in tables
            if row.key in {known.key for known in table.rows}
            for column in table.columns
            for size in [int(column.key.removeprefix("k"))]
        )
        if points:
            trends.append(Trend(name=row.name, metric="top1", points=points, colour=colour))
    return Figure(
        key="figure_3",
        title="Accuracy over the number of negatives",
        section="Figure 3",
        x_name="K",
        x_scale="log",
        y_name="top-1 accuracy (%)",
        trends=tuple(trends),
        command=f"moco run queue --scale {options.scale}",
    )


RECIPE = Recipe("queue", "Figure 3: accuracy over K, for the three mechanisms", build)
