"""Appendix A.9: the ablation on shuffling batch norm, Figure A.1."""

from components.pretrain import STAGE as PRETRAIN
from components.pretrain import PretrainConfig
from components.report import Column, Curve, Figure, Metric, Row, Table
from components.training.config import Schedule
from pipelines.plan import Plan, Source, Step
from pipelines.recipes import Options, Recipe
from pipelines.recipes._shared import cells, chosen, data_set, report

SHUFFLED = Row(key="shuffled", name="MoCo with shuffling BN")
PLAIN = Row(key="plain", name="MoCo w/o shuffling BN")

TABLE = Table(
    key="shuffling_bn",
    title="Shuffling batch norm: end of pre-training",
    section="Appendix A.9",
    source="appendix",
    rows=(SHUFFLED, PLAIN),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(
        Metric(key="pretext_accuracy", name="pretext accuracy"),
        Metric(key="knn_accuracy", name="kNN accuracy"),
    ),
    command="moco run shuffling_bn --rows {row} --trials {trials}",
    notes=(
        "The paper prints no other number than this: without shuffling, pretext accuracy goes over "
        "99.9 %.",
    ),
)


def figure(table: Table) -> Figure:
    """Return Figure A.1 over the first trials of a table."""
    curves = []
    for colour, row in enumerate(table.rows):
        for series, style in (("pretext_accuracy", "dashed"), ("knn_accuracy", "solid")):
            name = f"{row.name}, {'pretext' if style == 'dashed' else 'kNN'}"
            cell = table.cell(row.key, "imagenet", 0)
            curves.append(Curve(cell=cell, series=series, name=name, style=style, colour=colour))
    return Figure(
        key="figure_a1",
        title="Ablation of shuffling BN",
        section="Figure A.1",
        x_name="epochs",
        y_name="accuracy (%)",
        curves=tuple(curves),
        published=(
            "Dashed: the (K+1)-way look-up of the pretext task on training batches; "
            "without shuffling it goes over 99.9 %.",
            "Solid: the kNN monitor on validation images; without shuffling it drops.",
        ),
        command=f"{table.command}".replace(" --rows {row} --trials {trials}", ""),
    )


def measure(plan: Plan, options: Options) -> tuple[Table, Figure, dict[str, Source]]:
    """Add both pre-trainings; return the table, the figure and the metrics."""
    table = chosen(TABLE, options, own_rows=False)
    metrics: dict[str, Source] = {
        cell.key: _pretraining(plan, options, cell.row, cell.trial).metrics
        for cell in cells(table, options)
    }
    return table, figure(table), metrics


def _pretraining(plan: Plan, options: Options, row: str, trial: int) -> Step:
    """Pre-train as far as Figure A.1 goes: 80 epochs of the 200, before the first drop."""
    name = f"pretrain_{row}_{trial}"
    config = PretrainConfig(
        shuffle="shuffled" if row == "shuffled" else "plain",
        epochs=80,
        schedule=Schedule(),
        seed=trial,
    )
    # In miniature only small sub-batches leave a signature that a few epochs can learn.
    config = options.config(PRETRAIN.name, name, config, sub_batch=8)
    return plan.add(PRETRAIN, name, config, data=data_set(plan, options, "imagenet"))


def build(options: Options) -> Plan:
    """Plan Figure A.1."""
    plan = Plan("shuffling_bn", options.scale)
    table, curves, metrics = measure(plan, options)
    report(plan, options, [table], metrics, [curves])
    return plan


RECIPE = Recipe("shuffling_bn", "Appendix A.9, Figure A.1: with and without shuffling BN", build)
