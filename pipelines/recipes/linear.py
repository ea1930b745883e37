"""Table 1: linear classification of frozen features on ImageNet (Sec. 4.1)."""

from components.classification.linear import STAGE as LINEAR
from components.classification.linear import LinearConfig
from components.pretrain import PretrainConfig
from components.report import Column, Metric, Row, Table
from pipelines.recipes._shared import (
    MOCO_IN1M,
    RANDOM,
    SUPERVISED,
    one_table,
    published,
    training,
)

ENCODERS = {
    "moco_rx50": PretrainConfig(architecture="resnext50_32x8d"),
    "moco_r50w2": PretrainConfig(architecture="resnet50_w2"),
    "moco_r50w4": PretrainConfig(architecture="resnet50_w4"),
}
"""Larger encoders. The widest takes 16 times the GPU hours of a ResNet-50."""

TABLE = Table(
    key="linear",
    title="Linear classification on ImageNet",
    section="Table 1",
    source="main paper, transcribed",
    rows=(
        RANDOM,
        SUPERVISED,
        MOCO_IN1M,
        Row(key="moco_rx50", name="MoCo IN-1M, RX50 (46 M)", on_request=True),
        Row(key="moco_r50w2", name="MoCo IN-1M, R50w2× (94 M)", on_request=True),
        Row(key="moco_r50w4", name="MoCo IN-1M, R50w4× (375 M)", on_request=True),
    ),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(Metric(key="top1", name="top-1"), Metric(key="top5", name="top-5")),
    published=published(
        "imagenet",
        moco_in1m=(60.6, None),
        moco_rx50=(63.9, None),
        moco_r50w2=(65.4, None),
        moco_r50w4=(68.6, None),
    ),
    command="moco run linear --rows {row} --trials {trials}",
    notes=(
        "The released code's log has 60.8 ± 0.2 over 5 trials.",
        "Encoders other than a ResNet-50 are pre-trained where --rows names them.",
    ),
)

measure = training(
    TABLE,
    LINEAR,
    data="imagenet",
    config=lambda cell: LinearConfig(seed=cell.trial),
    pretrainings=ENCODERS,
)

RECIPE = one_table("linear", "Table 1: linear classification of frozen features", measure)
