"""Stage: COCO keypoints with the keypoint version of Mask R-CNN (Appendix A.2)."""

from collections.abc import Mapping
from typing import ClassVar, Self

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
from components.detection.model import ModelConfig, RpnConfig
from components.detection.presets import ITERATIONS, schedule
from components.training.config import Schedule


class KeypointsConfig(DetectionConfig):
    """R50-FPN on the persons of train2017, measured on val2017, at 2× (A.2)."""

    v100_seconds: ClassVar[Mapping[str, float]] = {"fpn": 0.315}

    dataset: DatasetName = "keypoints"
    """Which data set is learned and measured on, by its layout."""
    model: ModelConfig = ModelConfig(
        masks=False, keypoints=True, rpn=RpnConfig(proposals=(1500, 1000))
    )
    """R50-FPN with a keypoint head, and more proposals, which its boxes need."""
    iterations: PositiveInt = ITERATIONS["2x"]
    """Length of training, steps (A.2)."""
    schedule: Schedule = schedule("2x")
    """The learning rate over training (A.2)."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world; any digit is one, mirrored too."""
        return self.shrink(flip=0.5)


def keypoint_rcnn() -> KeypointsConfig:
    """Return the config of R50-FPN at 2× (Appendix A.2).

    The pyramid has batch norm, without which the loss becomes NaN.
    """
    return KeypointsConfig()


STAGE = Stage(
    name="detection.keypoints",
    summary="Fine-tune Keypoint R-CNN on COCO (Appendix A.2).",
    config=KeypointsConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.detection.train:run",
    image=IMAGE,
    resources=RESOURCES,
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
