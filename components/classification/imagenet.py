"""Stage: ImageNet classification, end to end, by fine-tuning or from scratch (Appendix A.7)."""

from typing import ClassVar, Self

from pydantic import PositiveFloat, PositiveInt

from components.classification.config import INPUTS, OUTPUTS, ClassificationConfig, Task
from components.core.main import main
from components.core.stage import Resources, Stage
from components.training.config import Schedule


class ImagenetConfig(ClassificationConfig):
    """Training on ImageNet-1M; the defaults are the paper's for fine-tuning (Appendix A.7).

    The paper states the learning rates and leaves the rest to "the usual" recipe: batch
    256, momentum 0.9, weight decay 1e-4.
    """

    task: ClassVar[Task] = "imagenet"

    lr: PositiveFloat = 0.03
    """0.03 for fine-tuning, 0.1 from scratch (Appendix A.7)."""
    epochs: PositiveInt = 100
    """Unstated in Appendix A.7; as in Appendix A.6."""
    schedule: Schedule = Schedule(drops=(0.3, 0.6, 0.9))
    """Unstated in the paper; the usual recipe drops every 30 epochs."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world."""
        return self.shrink(epochs=3, lr_batch=32)


def fine_tuning() -> ImagenetConfig:
    """Return the config that starts from pre-trained features (Appendix A.7)."""
    return ImagenetConfig()


def from_scratch() -> ImagenetConfig:
    """Return the config that starts from random initialisation (Appendix A.7).

    It also makes the supervised baseline that other tables initialise from.
    """
    return ImagenetConfig(lr=0.1)


STAGE = Stage(
    name="classification.imagenet",
    summary="Train a classifier on ImageNet, end to end (Appendix A.7).",
    config=ImagenetConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.classification.train:run",
    resources=Resources(gpus=8, cpus=64, memory=256, shared_memory=64),
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
