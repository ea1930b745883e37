"""Table 1: linear classification of frozen features on ImageNet (Sec. 4.1)."""

from components.classification.linear import STAGE as LINEAR
from components.classification.linear import LinearConfig
from components.report import Column, Metric, Published, Table
from pipelines.recipes._shared import (
    MOCO_IN1M,
    RANDOM,
    SUPERVISED,
    one_table,
    training,
)

TABLE = Table(
    key="linear",
    title="Linear classification on ImageNet, ResNet-50",
    section="Table 1",
    source="main paper, transcribed",
    rows=(RANDOM, SUPERVISED, MOCO_IN1M),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(Metric(key="top1", name="top-1"), Metric(key="top5", name="top-5")),
    published=(Published(row="moco_in1m", column="imagenet", values=(60.6, None)),),
    command="moco run linear --rows {row} --trials {trials}",
    notes=("The released code's log has 60.8 ± 0.2 over 5 trials.",),
)

measure = training(
    TABLE,
    LINEAR,
    data="imagenet",
    config=lambda cell: LinearConfig(seed=cell.trial),
)

RECIPE = one_table("linear", "Table 1: linear classification of frozen features", measure)
