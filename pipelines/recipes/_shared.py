"""What recipes share: the data of a scale, and a backbone for each initialisation."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.classification.imagenet import STAGE as IMAGENET
from components.classification.imagenet import from_scratch
from components.convert import STAGE as CONVERT
from components.convert import ConvertConfig
from components.core.config import C
from components.core.stage import Stage
from components.digits import STAGE as DIGITS
from components.digits import DigitsConfig
from components.pretrain import STAGE as PRETRAIN
from components.pretrain import PretrainConfig, ig1b
from components.report import STAGE as REPORT
from components.report import Figure, Metric, Published, ReportConfig, Row, Table
from pipelines.plan import Existing, Plan, Source, Step
from pipelines.recipes import Options, Recipe

NOT_PUBLIC = (
    "the Instagram images (IG-1B) and what was trained on them are not public; --data ig1b=FOLDER "
    "pre-trains on as many images of your own"
)

RANDOM = Row(key="random", name="random init.")
SUPERVISED = Row(key="supervised", name="super. IN-1M")
MOCO_IN1M = Row(key="moco_in1m", name="MoCo IN-1M")
IG1B = "ig1b"
"""A billion images of one's own, in place of Instagram's: `--data ig1b=FOLDER`."""
MOCO_IG1B = Row(key="moco_ig1b", name="MoCo IG-1B", unobtainable=NOT_PUBLIC)
INITIALISATIONS = (RANDOM, SUPERVISED, MOCO_IN1M, MOCO_IG1B)

BOXES_AND_MASKS = (
    Metric(key="AP", name="box AP"),
    Metric(key="AP50", name="box AP50"),
    Metric(key="AP75", name="box AP75"),
    Metric(key="mask_AP", name="mask AP"),
    Metric(key="mask_AP50", name="mask AP50"),
    Metric(key="mask_AP75", name="mask AP75"),
)


Measure = Callable[[Plan, Options], tuple[Table, dict[str, Source]]]
"""Adds the trainings of a table to a plan; returns the table and the metrics by cell key."""


@dataclass(frozen=True)
class PlannedTrial:
    """One trial to run: where it stands in its table, and its seed."""

    row: str
    column: str
    trial: int
    key: str


def published(column: str, **rows: tuple[float | None, ...]) -> tuple[Published, ...]:
    """State what the paper prints in a column, by row."""
    return tuple(Published(row=row, column=column, values=values) for row, values in rows.items())


def data_set(plan: Plan, options: Options, name: str) -> Source:
    """Return a data set by name: mounted or in a bucket, written by a step in miniature.

    There, any images are those of ImageNet's layout.
    """
    if options.scale == "full":
        return options.given(name)
    name = "imagenet" if name in ("images", IG1B) else name
    config = options.config(DIGITS.name, "digits", DigitsConfig())
    return plan.add(DIGITS, "digits", config).output(name)


def chosen(table: Table, options: Options, *, own_rows: bool = True) -> Table:
    """Bring a table to the user's choice of columns, trials and checkpoints.

    A checkpoint given for an unobtainable row makes it a row like the others. A table that
    has none of the chosen columns keeps all of its own. The miniature has no rows on request:
    they are what is too large.

    Args:
        table: As the paper has it.
        options: The user's.
        own_rows: Whether the user's own checkpoints become rows; they can where rows are
            initialisations.
    """
    rows = [
        _obtained(row, options)
        for row in table.rows
        if options.scale == "full" or not row.on_request
    ]
    if own_rows:
        known = {row.key for row in rows}
        rows += [
            Row(key=name, name=name, given=_option("--row", name, options.own))
            for name in options.own
            if name not in known
        ]
    columns = [c for c in table.columns if c.key in (options.columns or ())] or table.columns
    kept = {(row.key, column.key) for row in rows for column in columns}
    return table.derive(
        rows=[row.model_dump(mode="json") for row in rows],
        columns=[column.model_dump(mode="json") for column in columns],
        published=[p.model_dump(mode="json") for p in table.published if (p.row, p.column) in kept],
        trials=options.trials or (1 if options.scale == "digits" else table.trials),
        command=f"{table.command} --scale {options.scale}",
    )


def _obtained(row: Row, options: Options) -> Row:
    """Make a row one like the others if what it lacks is given, a checkpoint or images.

    A billion images are wanted where they are given, or where their row is named.
    """
    if row.key in options.existing:
        return row.derive(unobtainable=None, given=_option("--init", row.key, options.existing))
    wanted = IG1B in options.data or row.key in (options.rows or ())
    if row.key == MOCO_IG1B.key and wanted:
        return row.derive(unobtainable=None)
    return row


def _option(option: str, row: str, checkpoints: Mapping[str, Existing]) -> str:
    """Write an option as a shell reads it, whatever is in the path."""
    return f"{option} {shlex.quote(f'{row}={checkpoints[row].uri}')}"


def cells(table: Table, options: Options) -> Iterator[PlannedTrial]:
    """Yield the trials that can be run of a chosen table."""
    for row in table.rows:
        if options.rows is not None:
            wanted = row.key in (*options.rows, *options.own)
        else:
            wanted = not row.on_request or row.key in options.checkpoints
        if row.unobtainable is None and wanted:
            for column in table.columns:
                for trial in range(table.trials):
                    key = table.cell(row.key, column.key, trial)
                    yield PlannedTrial(row.key, column.key, trial, key)


def train_cells(
    plan: Plan,
    options: Options,
    table: Table,
    stage: Stage[C],
    *,
    data: str | None = None,
    config: Callable[[PlannedTrial], C],
    initial: Callable[[PlannedTrial], Source] | None = None,
) -> dict[str, Source]:
    """Add one training for every cell of a chosen table; return their metrics by cell key.

    Args:
        plan: Where the steps go.
        options: The user's.
        table: A chosen table.
        stage: Trains from a `backbone` on `data`, and measures.
        data: Name of the data set; by default it is what the cell's column is called.
        config: Of a cell, at full scale.
        initial: The backbone of a cell; that of its row by default.
    """
    metrics: dict[str, Source] = {}
    for cell in cells(table, options):
        column = "" if data == cell.column else f"{cell.column}_"
        name = f"{table.key}_{column}{cell.row}_{cell.trial}"
        step = plan.add(
            stage,
            name,
            options.config(stage.name, name, config(cell)),
            data=data_set(plan, options, data or cell.column),
            backbone=initial(cell) if initial else backbone(plan, options, cell.row, cell.trial),
        )
        metrics[cell.key] = step.output("metrics")
    return metrics


def training(
    table: Table,
    stage: Stage[C],
    *,
    data: str | None = None,
    config: Callable[[PlannedTrial], C],
    pretrainings: Mapping[str, PretrainConfig] | None = None,
    miniature: Callable[[PretrainConfig], Mapping[str, Any]] = lambda _: {},
    own_rows: bool = True,
) -> Measure:
    """Return what adds one training for every chosen cell of a table.

    Args:
        table: As the paper has it.
        stage: As for `train_cells`, like `data` and `config`.
        data: Likewise.
        config: Likewise.
        pretrainings: Of rows that are pre-trained otherwise than MoCo's of Sec. 4.
        miniature: What of them stays in miniature, or becomes something else.
        own_rows: As for `chosen`.
    """

    def measure(plan: Plan, options: Options) -> tuple[Table, dict[str, Source]]:
        def initial(cell: PlannedTrial) -> Source:
            own = (pretrainings or {}).get(cell.row)
            kept = miniature(own) if own else {}
            return backbone(plan, options, cell.row, cell.trial, pretrained_by=own, miniature=kept)

        brought = chosen(table, options, own_rows=own_rows)
        return brought, train_cells(
            plan, options, brought, stage, data=data, config=config, initial=initial
        )

    return measure


def one_table(name: str, summary: str, measure: Measure) -> Recipe:
    """Make the recipe that fills one table and reports it."""
    return several_tables(name, summary, [measure])


def several_tables(name: str, summary: str, measures: Iterable[Measure]) -> Recipe:
    """Make the recipe that fills tables, sharing what makes them, and reports all in one."""

    def build(options: Options) -> Plan:
        plan = Plan(name, options.scale)
        tables, metrics = measure_all(plan, options, measures)
        report(plan, options, tables, metrics)
        return plan

    return Recipe(name, summary, build)


def measure_all(
    plan: Plan, options: Options, measures: Iterable[Measure]
) -> tuple[list[Table], dict[str, Source]]:
    """Add the trainings of several tables; return the tables and the metrics by cell key."""
    tables = []
    metrics: dict[str, Source] = {}
    for measure in measures:
        table, measured = measure(plan, options)
        tables.append(table)
        metrics |= measured
    return tables, metrics


def backbone(
    plan: Plan,
    options: Options,
    row: str,
    trial: int = 0,
    *,
    pretrained_by: PretrainConfig | None = None,
    miniature: Mapping[str, Any] | None = None,
) -> Source:
    """Return the converted backbone of an initialisation, adding the steps that make it.

    A checkpoint that exists is converted; otherwise random weights are drawn (others
    in each trial), the supervised baseline is trained from scratch, or MoCo is
    pre-trained.

    Args:
        plan: Where the steps go.
        options: The user's.
        row: The initialisation.
        trial: Whose random weights are meant.
        pretrained_by: A pre-training of the row's own, in place of MoCo's of Sec. 4.
        miniature: Changes of its miniature.
    """
    if row == "random" and row not in options.checkpoints:
        name = "convert_random" if trial == 0 else f"convert_random_{trial}"
        config = ConvertConfig(source="random", seed=trial)
        return plan.add(CONVERT, name, options.config(CONVERT.name, name, config)).output(
            "backbone"
        )
    if row in options.checkpoints:
        checkpoint: Source = options.checkpoints[row]
    elif pretrained_by is not None:
        checkpoint = pretraining(plan, options, row, pretrained_by, miniature=miniature).output(
            "encoder"
        )
    elif row == "supervised":
        checkpoint = supervised(plan, options).output("model")
    elif row == MOCO_IG1B.key:
        checkpoint = pretraining(plan, options, row, ig1b(), data=IG1B).output("encoder")
    else:
        checkpoint = pretraining(plan, options).output("encoder")
    return converted(plan, options, row, checkpoint)


def converted(plan: Plan, options: Options, row: str, checkpoint: Source) -> Source:
    """Return the backbone of a row's checkpoint, adding its conversion."""
    name = f"convert_{row}"
    config = options.config(CONVERT.name, name, ConvertConfig(origin=row))
    return plan.add(CONVERT, name, config, checkpoint=checkpoint).output("backbone")


def pretraining(
    plan: Plan,
    options: Options,
    row: str = MOCO_IN1M.key,
    config: PretrainConfig | None = None,
    *,
    miniature: Mapping[str, Any] | None = None,
    monitor: Source | None = None,
    data: str | None = None,
) -> Step:
    """Add the pre-training of a row: on ImageNet-1M MoCo's of Sec. 4, or another one.

    Args:
        plan: Where the step goes.
        options: The user's.
        row: Whose pre-training it is.
        config: At full scale.
        miniature: Changes of its miniature.
        monitor: What the kNN monitor votes on.
        data: Name of the data set; by default that of its layout.
    """
    name = f"pretrain_{row}"
    config = options.config(PRETRAIN.name, name, config or PretrainConfig(), **(miniature or {}))
    images = data or config.data
    if images in options.sizes:  # what fits depends on the batch; what is set stays
        config = options.config(PRETRAIN.name, name, config.fit(options.sizes[images]))
    inputs = {"data": data_set(plan, options, images)}
    if monitor is not None:
        inputs["monitor"] = monitor
    return plan.add(PRETRAIN, name, config, **inputs)


def supervised(plan: Plan, options: Options) -> Step:
    """Add the supervised baseline: ImageNet classification from random initialisation."""
    config = options.config(IMAGENET.name, "supervised", from_scratch())
    return plan.add(
        IMAGENET,
        "supervised",
        config,
        data=data_set(plan, options, "imagenet"),
        backbone=backbone(plan, options, "random"),
    )


def report(
    plan: Plan,
    options: Options,
    tables: Iterable[Table],
    metrics: dict[str, Source],
    figures: Iterable[Figure] = (),
) -> Step:
    """Add the report over everything that the plan measures."""
    config = ReportConfig(
        title=f"MoCo transfer: {plan.name}",
        scale=options.scale,
        tables=tuple(tables),
        figures=tuple(figures),
    )
    return plan.add(REPORT, "report", config, metrics=metrics)
