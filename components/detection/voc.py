"""Stage: PASCAL VOC detection with Faster R-CNN (Appendix A.1)."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveInt

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
from components.detection.model import ModelConfig
from components.detection.presets import SINGLE_MAP, c4
from components.training.config import Schedule


class VocConfig(DetectionConfig):
    """Faster R-CNN on trainval07+12, measured on test2007; the defaults are R50-C4's (A.1)."""

    v100_seconds: ClassVar[Mapping[str, float]] = {"c4": 0.537, "dc5": 0.380, "fpn": 0.210}

    dataset: DatasetName = "voc"
    """Which data set is learned and measured on, by its layout."""
    model: ModelConfig = c4(masks=False)
    """R50-C4 (A.1 ii)."""
    iterations: PositiveInt = 24_000
    """Length of training, steps (A.1)."""
    schedule: Schedule = Schedule(drops=(18 / 24, 22 / 24), by_epoch=False, warmup=100)
    """The learning rate falls at 18k and 22k (A.1)."""
    shorter_sides: tuple[PositiveInt, ...] = tuple(range(480, 801, 32))
    """An image's shorter side in training, one of these at random, pixels (A.1)."""


def faster_rcnn_c4() -> VocConfig:
    """Return the config of R50-C4 with the extra norm (Appendix A.1 ii)."""
    return VocConfig()


def faster_rcnn_dc5() -> VocConfig:
    """Return the config of R50-dilated-C5 (Appendix A.1 i).

    Its extra 3×3 convolution of 512 channels has batch norm; the box head is two hidden
    fully connected layers.
    """
    model = ModelConfig(kind="dc5", masks=False, neck_channels=512, rpn=SINGLE_MAP)
    return VocConfig(model=model)


STAGE = Stage(
    name="detection.voc",
    summary="Fine-tune Faster R-CNN on PASCAL VOC (Appendix A.1).",
    config=VocConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.detection.train:run",
    image=IMAGE,
    resources=RESOURCES,
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
