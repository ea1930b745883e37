"""Stage: COCO detection and instance segmentation with Mask R-CNN (Sec. 4.2, Appendix A.8)."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

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
from components.detection.presets import ITERATIONS, SHORTER, Length, c4, schedule


class CocoConfig(DetectionConfig):
    """Mask R-CNN on train2017, measured on val2017; the defaults are R50-FPN's at 1×."""

    v100_seconds: ClassVar[Mapping[str, float]] = {"fpn": 0.261, "c4": 0.584, "dc5": 0.471}

    dataset: DatasetName = "coco"
    """Which data set is learned and measured on, by its layout."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world; schedules keep their proportions."""
        return self.shrink(iterations=self.iterations // SHORTER)


def mask_rcnn_fpn(length: Length = "1x") -> CocoConfig:
    """Return the config of R50-FPN (Appendix A.8).

    Batch norm is tuned and synchronised in the backbone and in the pyramid, and nowhere else.
    """
    return CocoConfig(iterations=ITERATIONS[length], schedule=schedule(length))


def mask_rcnn_c4(length: Literal["1x", "2x"] = "1x") -> CocoConfig:
    """Return the config of R50-C4 (Sec. 4.2).

    As in the released code, conv5 in the head is followed by a new batch norm here too.
    """
    return CocoConfig(
        iterations=ITERATIONS[length], schedule=schedule(length), model=c4(masks=True)
    )


STAGE = Stage(
    name="detection.coco",
    summary="Fine-tune Mask R-CNN on COCO (Sec. 4.2, Appendix A.8).",
    config=CocoConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.detection.train:run",
    image=IMAGE,
    resources=RESOURCES,
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
