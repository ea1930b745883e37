"""What several of the paper's models have in common: detectron2's schedules, and R50-C4."""

from collections.abc import Mapping
from typing import Literal

from components.detection.model import ModelConfig, RpnConfig
from components.training.config import Schedule

Length = Literal["1x", "2x", "6x"]
ITERATIONS: Mapping[Length, int] = {"1x": 90_000, "2x": 180_000, "6x": 540_000}
"""Steps of 16 images; 1× is about 12 passes over train2017."""
_DROPS: Mapping[Length, tuple[float, float]] = {
    "1x": (60 / 90, 80 / 90),
    "2x": (120 / 180, 160 / 180),
    "6x": (480 / 540, 520 / 540),
}
SINGLE_MAP = RpnConfig(proposals_before=(12_000, 6000), proposals=(2000, 1000))
"""detectron2's region proposals from one map of features, C4's and DC5's."""


SHORTER = 600
"""Iterations of the paper for one of the miniature, where lengths of training are compared."""


def schedule(length: Length) -> Schedule:
    """Return detectron2's schedule of a length: drops at fixed steps, 1,000 of warm-up."""
    return Schedule(drops=_DROPS[length], by_epoch=False, warmup=1000)


def c4(*, masks: bool) -> ModelConfig:
    """Return R50-C4 with tuned batch norm and a new one after conv5 in the head.

    The released code has the new norm on VOC and COCO alike, before the pooling; the
    wording of A.1 suggests after it.
    """
    return ModelConfig(
        kind="c4",
        neck_norm=False,
        head_norm="before_pooling",
        masks=masks,
        rpn=SINGLE_MAP,
        pooling=14,
    )
