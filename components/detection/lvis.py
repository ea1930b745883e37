"""Stage: LVIS v0.5 instance segmentation with Mask R-CNN (Appendix A.4)."""

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
from components.detection.model import Fraction, ModelConfig
from components.detection.presets import ITERATIONS, SHORTER, schedule


class LvisConfig(DetectionConfig):
    """R50-FPN on train_v0.5, measured on val_v0.5; the defaults are tuned norm at 1× (A.4)."""

    v100_seconds: ClassVar[Mapping[str, float]] = {"fpn": 0.292}

    dataset: DatasetName = "lvis"
    """Which data set is learned and measured on, by its layout."""
    model: ModelConfig = ModelConfig(score_threshold=1e-4, detections=300)
    """R50-FPN with as many detections as LVIS counts."""
    repeat_threshold: Fraction = 0.001
    """Share of images below which a class has its images repeated."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world; schedules keep their proportions."""
        return self.shrink(iterations=self.iterations // SHORTER)


def mask_rcnn(
    norm: Literal["frozen", "tuned"] = "tuned", length: Literal["1x", "2x"] = "1x"
) -> LvisConfig:
    """Return the config of R50-FPN (Appendix A.4).

    Args:
        norm: `tuned` is synchronised batch norm in backbone and pyramid; `frozen` keeps
            the backbone's as converted and has none in the pyramid.
        length: Of training.
    """
    return LvisConfig(
        model=LvisConfig().model.derive(backbone_norm=norm, neck_norm=norm == "tuned"),
        iterations=ITERATIONS[length],
        schedule=schedule(length),
    )


STAGE = Stage(
    name="detection.lvis",
    summary="Fine-tune Mask R-CNN on LVIS v0.5 (Appendix A.4).",
    config=LvisConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.detection.train:run",
    image=IMAGE,
    resources=RESOURCES,
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
