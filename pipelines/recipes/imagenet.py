"""Appendix A.7: fine-tuning on ImageNet, end to end."""

from components.classification.imagenet import STAGE as IMAGENET
from components.classification.imagenet import fine_tuning, from_scratch
from components.report import Column, Metric, Published, Table
from pipelines.recipes._shared import (
    MOCO_IG1B,
    MOCO_IN1M,
    RANDOM,
    one_table,
    training,
)

TABLE = Table(
    key="imagenet",
    title="ImageNet fine-tuning, end to end",
    section="Appendix A.7",
    source="appendix",
    rows=(RANDOM, MOCO_IG1B, MOCO_IN1M),
    columns=(Column(key="imagenet", name="ImageNet"),),
    metrics=(Metric(key="top1", name="top-1"),),
    published=(
        Published(row="random", column="imagenet", values=(76.5,)),
        Published(row="moco_ig1b", column="imagenet", values=(77.3,)),
        Published(row="moco_in1m", column="imagenet", values=(77.0,)),
    ),
    command="moco run imagenet --rows {row} --trials {trials}",
    notes=(
        "MoCo IN-1M is for reference only: pre-training saw the same images.",
        "The paper states the learning rates (0.03, and 0.1 from scratch) and leaves the rest of "
        "the recipe to the usual one.",
    ),
)

CONFIGS = {"random": from_scratch}

measure = training(
    TABLE,
    IMAGENET,
    data="imagenet",
    config=lambda cell: CONFIGS.get(cell.row, fine_tuning)().derive(seed=cell.trial),
)

RECIPE = one_table("imagenet", "Appendix A.7: ImageNet fine-tuning, end to end", measure)
