"""Pre-training alone (Sec. 3.3): MoCo on ImageNet-1M, its curves, and the converted backbone."""

from components.report import Column, Curve, Figure, Metric, Table
from pipelines.plan import Plan
from pipelines.recipes import Options, Recipe
from pipelines.recipes._shared import MOCO_IN1M, backbone, pretraining, report

TABLE = Table(
    key="pretrain",
    title="Pre-training: the last epoch",
    section="Sec. 3.3",
    source="main paper, transcribed",
    rows=(MOCO_IN1M,),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(
        Metric(key="pretext_accuracy", name="pretext accuracy"),
        Metric(key="knn_accuracy", name="kNN accuracy"),
    ),
    command="moco run pretrain",
    notes=("The paper prints neither figure for a whole pre-training.",),
)


def build(options: Options) -> Plan:
    """Plan one pre-training and its conversion."""
    plan = Plan("pretrain", options.scale)
    step = pretraining(plan, options)
    backbone(plan, options, MOCO_IN1M.key)
    table = TABLE.derive(command=f"{TABLE.command} --scale {options.scale}")
    cell = table.cell(MOCO_IN1M.key, "imagenet", 0)
    figure = Figure(
        key="pretraining",
        title="Pre-training",
        section="Sec. 3.3",
        x_name="epochs",
        y_name="accuracy (%)",
        curves=(
            Curve(cell=cell, series="pretext_accuracy", name="pretext", style="dashed"),
            Curve(cell=cell, series="knn_accuracy", name="kNN"),
        ),
        command=table.command,
    )
    report(plan, options, [table], {cell: step.output("metrics")}, [figure])
    return plan


RECIPE = Recipe("pretrain", "Pre-train with MoCo on ImageNet-1M, and convert", build)
