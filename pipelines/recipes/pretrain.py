"""Pre-training alone (Sec. 3.3): on ImageNet-1M or your own images, its curves, the backbone."""

from components.pretrain import PretrainConfig
from components.report import Column, Curve, Figure, Metric, Row, Table
from pipelines.plan import Plan, Source
from pipelines.recipes import Options, Recipe
from pipelines.recipes._shared import MOCO_IN1M, converted, data_set, pretraining, report

IMAGENET = Column(key="imagenet", name="ImageNet")
IMAGES = Column(key="images", name="your images")
"""Any tree of images, `--data images=FOLDER`; `--data imagenet=FOLDER` is then the monitor's."""
OWN = Row(key="moco", name="MoCo")
METRICS = (
    Metric(key="pretext_accuracy", name="pretext accuracy"),
    Metric(key="knn_accuracy", name="kNN accuracy"),
)

TABLE = Table(
    key="pretrain",
    title="Pre-training: the last epoch",
    section="Sec. 3.3",
    source="main paper, transcribed",
    rows=(MOCO_IN1M,),
    columns=(IMAGENET,),
    metrics=METRICS,
    command="moco run pretrain",
    notes=("The paper prints neither figure for a whole pre-training.",),
)


def build(options: Options) -> Plan:
    """Plan one pre-training and its conversion."""
    plan = Plan("pretrain", options.scale)
    own = IMAGES.key in (*options.data, *(options.columns or ()))
    monitored = not own or IMAGENET.key in options.data
    row, column = (OWN, IMAGES) if own else (MOCO_IN1M, IMAGENET)
    config = PretrainConfig()
    monitor: Source | None = None
    if own:
        config = config.derive(data=IMAGES.key)
        if monitored:
            monitor = data_set(plan, options, IMAGENET.key)
        else:
            config = config.derive(knn=None)
    step = pretraining(plan, options, row.key, config, monitor=monitor)
    converted(plan, options, row.key, step.output("encoder"))
    table = TABLE.derive(
        rows=[row.model_dump(mode="json")],
        columns=[column.model_dump(mode="json")],
        metrics=[metric.model_dump(mode="json") for metric in METRICS[: 2 if monitored else 1]],
        notes=() if own else TABLE.notes,
        command=f"{TABLE.command}{' --columns images' if own else ''} --scale {options.scale}",
    )
    cell = table.cell(row.key, column.key, 0)
    curves = [Curve(cell=cell, series="pretext_accuracy", name="pretext", style="dashed")]
    if monitored:
        curves.append(Curve(cell=cell, series="knn_accuracy", name="kNN"))
    figure = Figure(
        key="pretraining",
        title="Pre-training",
        section="Sec. 3.3",
        x_name="epochs",
        y_name="accuracy (%)",
        curves=tuple(curves),
        command=table.command,
    )
    report(plan, options, [table], {cell: step.output("metrics")}, [figure])
    return plan


RECIPE = Recipe("pretrain", "Pre-train on ImageNet-1M or images of your own, and convert", build)
