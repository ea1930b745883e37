"""Appendix A.9: the ablation on shuffling batch norm, Figure A.1."""

from typing import Any

from components.digits import STAGE as DIGITS
from components.digits import DigitsConfig, PicturesConfig
from components.pretrain import STAGE as PRETRAIN
from components.pretrain import PretrainConfig
from components.report import Column, Curve, Figure, Metric, Row, Table
from components.training.config import Schedule
from pipelines.plan import Output, Plan, Source, Step
from pipelines.recipes import Options, Recipe
from pipelines.recipes._shared import cells, chosen, report

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
        cell.key: _pretraining(plan, options, cell.row, cell.trial).output("metrics")
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
    config = options.config(PRETRAIN.name, name, config, **_miniature(config))
    return plan.add(PRETRAIN, name, config, data=_data(plan, options))


def _miniature(config: PretrainConfig) -> dict[str, Any]:
    """Return what lets a few epochs show the signature, and what it costs.

    Four images leave a strong one: which hues their grounds have. Views keep the hue, as
    the paper's keep most of what batch statistics see, and a low temperature lets the loss vanish
    once the look-up is solved.
    """
    views = config.miniature().augmentation.derive(
        brightness=0.2, contrast=0.0, saturation=0.0, hue=0.0, grayscale_probability=0.0
    )
    return {
        "sub_batch": 4,
        "epochs": 20,
        "lr": 0.06,
        "temperature": 0.1,
        "augmentation": views.model_dump(mode="json"),
    }


def _data(plan: Plan, options: Options) -> Source:
    """Return ImageNet; in miniature scenes whose grounds have one of eight hues.

    A hue hardly tells which scene it is, for many have it, but those of a sub-batch tell which
    sub-batch it is. Of the layouts with several digits the least is written.
    """
    if options.scale == "full":
        return options.given("imagenet")
    few = PicturesConfig(train=20, val=20).model_dump(mode="json")
    name = "digits_on_colours"
    config = options.config(DIGITS.name, name, DigitsConfig(), colours=8, pictures=few)
    output: Output = plan.add(DIGITS, name, config).output("imagenet")
    return output


def build(options: Options) -> Plan:
    """Plan Figure A.1."""
    plan = Plan("shuffling_bn", options.scale)
    table, curves, metrics = measure(plan, options)
    report(plan, options, [table], metrics, [curves])
    return plan


RECIPE = Recipe("shuffling_bn", "Appendix A.9, Figure A.1: with and without shuffling BN", build)
