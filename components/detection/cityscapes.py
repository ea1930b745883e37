"""Stage: Cityscapes instance segmentation with Mask R-CNN (Table 6)."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt

from components.core.main import main
from components.core.stage import Stage
from components.detection.config import (
    IMAGE,
    INPUTS,
    OUTPUTS,
    RESOURCES,
    DatasetName,
    DetectionConfig,
)
from components.training.config import Schedule


class CityscapesConfig(DetectionConfig):
    """R50-FPN on train_fine, measured on val (Table 6).

    The paper gives no schedule; this is detectron2's, from the converted backbone in place
    of its COCO model.
    """

    v100_seconds: ClassVar[Mapping[str, float]] = {"fpn": 0.240}

    dataset: DatasetName = "cityscapes"
    """Which data set is learned and measured on, by its layout."""
    iterations: PositiveInt = 24_000
    """Length of training, steps."""
    batch_size: PositiveInt = 8
    """Images a step over all processes."""
    lr: PositiveFloat = 0.01
    """Learning rate for a batch of `lr_batch`; it is scaled linearly to `batch_size`."""
    lr_batch: PositiveInt = 8
    """The batch for which `lr` is."""
    schedule: Schedule = Schedule(drops=(18 / 24,), by_epoch=False, warmup=1000)
    """The learning rate over training."""
    shorter_sides: tuple[PositiveInt, ...] = tuple(range(800, 1025, 32))
    """An image's shorter side in training, one of these at random, pixels."""
    test_side: PositiveInt = 1024
    """An image's shorter side in evaluation, pixels."""
    longer_side: PositiveInt = 2048
    """An image's longer side, at most, pixels."""


def mask_rcnn() -> CityscapesConfig:
    """Return the config of R50-FPN (Table 6)."""
    return CityscapesConfig()


STAGE = Stage(
    name="detection.cityscapes",
    summary="Fine-tune Mask R-CNN on Cityscapes instances (Table 6).",
    config=CityscapesConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.detection.train:run",
    image=IMAGE,
    resources=RESOURCES,
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
