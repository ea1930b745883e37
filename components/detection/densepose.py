"""Stage: COCO DensePose with DensePose R-CNN (Appendix A.3)."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

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
from components.detection.model import ModelConfig
from components.training.config import Schedule


class DensePoseConfig(DetectionConfig):
    """R50-FPN on the persons of 2014's train and valminusminival, measured on minival (A.3)."""

    v100_seconds: ClassVar[Mapping[str, float]] = {"fpn": 0.307}

    dataset: DatasetName = "densepose"
    """Which data set is learned and measured on, by its layout."""
    model: ModelConfig = ModelConfig(masks=False, surface="legacy", sampling=2)
    """R50-FPN with a DensePose head (A.3)."""
    iterations: PositiveInt = 130_000
    """Length of training, steps: the schedule s1x (A.3)."""
    lr: PositiveFloat = 0.002
    """Learning rate for a batch of `lr_batch`: 0.002 of the legacy head, 0.01 of the newer one."""
    schedule: Schedule = Schedule(
        drops=(100 / 130, 120 / 130), by_epoch=False, warmup=1000, warmup_factor=0.1
    )
    """The learning rate over training: s1x."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world; any digit is one, mirrored too.

        The surface is what is learned last, and with a gradient that is not cut short.
        """
        sizes = {"surface_channels": 64}
        if self.model.surface == "deeplab":
            sizes["neck_channels"] = 64  # its norm has 32 groups
        return self.shrink(flip=0.5, lr=0.01, clip=20.0, iterations=500, model=sizes)


def densepose_rcnn(head: Literal["legacy", "deeplab"] = "legacy") -> DensePoseConfig:
    """Return the config of R50-FPN at s1x (Appendix A.3).

    Args:
        head: `legacy` is that of the paper's time; `deeplab` came in 2020 with another
            learning rate, and its figures are about twelve points higher.
    """
    if head == "legacy":
        return DensePoseConfig()
    return DensePoseConfig(model=ModelConfig(masks=False, surface=head, sampling=2), lr=0.01)


STAGE = Stage(
    name="detection.densepose",
    summary="Fine-tune DensePose R-CNN on COCO (Appendix A.3).",
    config=DensePoseConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.detection.train:run",
    image=IMAGE,
    resources=RESOURCES,
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
