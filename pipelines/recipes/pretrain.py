"""Pre-training alone (Sec. 3.3): on ImageNet-1M or your own images, its curves, the backbone."""

from components.pretrain import KnnConfig, PretrainConfig, ig1b
from components.report import Column, Curve, Figure, Metric, Row, Table
from pipelines.plan import Plan, Source
from pipelines.recipes import Options, Recipe
from pipelines.recipes._shared import (
    IG1B,
    MOCO_IG1B,
    MOCO_IN1M,
    converted,
    data_set,
    pretraining,
    report,
)

IMAGENET = Column(key="imagenet", name="ImageNet")
IMAGES = Column(key="images", name="your images")
"""Any tree of images, `--data images=FOLDER`; `--data imagenet=FOLDER` is then the monitor's."""
BILLION = Column(key=IG1B, name="a billion images")
"""The same, `--data ig1b=FOLDER`, by the paper's recipe for IG-1B."""
EVERY = 25_000
"""Steps between votes where an epoch is nearly all of the training."""
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
    wanted = (*options.data, *(options.columns or ()))
    row, column, config = MOCO_IN1M, IMAGENET, PretrainConfig()
    if BILLION.key in wanted:
        row, column, config = MOCO_IG1B.derive(unobtainable=None), BILLION, ig1b()
    elif IMAGES.key in wanted:
        row, column, config = OWN, IMAGES, config.derive(data=IMAGES.key)
    own = column is not IMAGENET
    monitored = not own or IMAGENET.key in options.data
    monitor: Source | None = None
    if own and monitored:
        monitor = data_set(plan, options, IMAGENET.key)
        knn = KnnConfig(every_iterations=EVERY) if column is BILLION else KnnConfig()
        config = config.derive(knn=knn.model_dump(mode="json"))
    elif own:
        config = config.derive(knn=None)
    step = pretraining(plan, options, row.key, config, monitor=monitor, data=column.key)
    converted(plan, options, row.key, step.output("encoder"))
    table = TABLE.derive(
        rows=[row.model_dump(mode="json")],
        columns=[column.model_dump(mode="json")],
        metrics=[metric.model_dump(mode="json") for metric in METRICS[: 2 if monitored else 1]],
        notes=() if own else TABLE.notes,
        command=f"{TABLE.command}{f' --columns {column.key}' if own else ''}"
        f" --scale {options.scale}",
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
