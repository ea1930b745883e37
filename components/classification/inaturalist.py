"""Stage: iNaturalist 2018 classification, end to end (Appendix A.6)."""

from typing import ClassVar, Self

from pydantic import PositiveFloat, PositiveInt

from components.classification.config import (
    INPUTS,
    OUTPUTS,
    ClassificationConfig,
    DatasetName,
    Task,
)
from components.core.main import main
from components.core.stage import Resources, Stage
from components.training.config import Schedule


class INaturalistConfig(ClassificationConfig):
    """Training on iNaturalist 2018, 8142 classes; the defaults are for fine-tuning (A.6)."""

    task: ClassVar[Task] = "inaturalist"
    paper_images: ClassVar[int] = 437_513

    dataset: DatasetName = "inaturalist"
    """Which data set is learned and measured on, by its layout."""
    lr: PositiveFloat = 0.025
    """0.025 for fine-tuning, 0.1 from scratch (Appendix A.6)."""
    epochs: PositiveInt = 100
    """Appendix A.6."""
    schedule: Schedule = Schedule(drops=(0.7, 0.9))
    """Divided by 10 at 70 % and 90 % of training (Appendix A.6)."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world."""
        return self.shrink(epochs=4, lr_batch=32)


def fine_tuning() -> INaturalistConfig:
    """Return the config that starts from pre-trained features (Appendix A.6)."""
    return INaturalistConfig()


def from_scratch() -> INaturalistConfig:
    """Return the config that starts from random initialisation (Appendix A.6)."""
    return INaturalistConfig(lr=0.1)


STAGE = Stage(
    name="classification.inaturalist",
    summary="Train a classifier on iNaturalist 2018, end to end (Appendix A.6).",
    config=INaturalistConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.classification.train:run",
    resources=Resources(gpus=8, cpus=64, memory=256, shared_memory=64),
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
