"""Sec. 4.1: how slowly the key encoder follows, under linear classification."""

from components.classification.linear import STAGE as LINEAR
from components.classification.linear import LinearConfig
from components.pretrain import PretrainConfig
from components.report import Column, Metric, Row, Table
from pipelines.recipes._shared import one_table, published, training

MOMENTA = {"m0": 0.0, "m0_9": 0.9, "m0_99": 0.99, "m0_999": 0.999, "m0_9999": 0.9999}

TABLE = Table(
    key="momentum",
    title="Momentum of the key encoder under linear classification, K = 4096",
    section="Sec. 4.1",
    source="main paper, transcribed",
    rows=tuple(Row(key=key, name=f"m = {momentum:g}") for key, momentum in MOMENTA.items()),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(Metric(key="top1", name="top-1"),),
    published=published("imagenet", m0_9=(55.2,), m0_99=(57.8,), m0_999=(59.0,), m0_9999=(58.9,)),
    command="moco run momentum --rows {row} --trials {trials}",
    notes=(
        "With m = 0 the paper's training fails: its loss oscillates and does not converge.",
        "In miniature K is 1024.",
    ),
)

measure = training(
    TABLE,
    LINEAR,
    data="imagenet",
    config=lambda cell: LinearConfig(seed=cell.trial),
    pretrainings={
        key: PretrainConfig(negatives=4096, key_momentum=momentum)
        for key, momentum in MOMENTA.items()
    },
    miniature=lambda config: {"key_momentum": config.key_momentum},
    own_rows=False,
)

RECIPE = one_table("momentum", "Sec. 4.1: momentum of the key encoder, 0 to 0.9999", measure)
