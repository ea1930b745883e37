"""Stage: linear classification of frozen features on ImageNet (Sec. 4.1)."""

from typing import ClassVar, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from components.classification.config import INPUTS, OUTPUTS, ClassificationConfig, Task
from components.core.gpus import Work
from components.core.main import main
from components.core.stage import Resources, Stage
from components.training.config import Schedule


class LinearConfig(ClassificationConfig):
    """A linear classifier on globally pooled, frozen features; the defaults are the paper's.

    The backbone is in evaluation mode throughout, so its batch statistics are frozen
    too, and the stage ends with a check that no tensor of it has moved.
    """

    task: ClassVar[Task] = "linear"
    frozen: ClassVar[bool] = True
    work: ClassVar[Work] = "linear"
    v100_rate: ClassVar[float] = 1000.0
    """Images/s of one V100 with ResNet-50 at 224 pixels in fp32, forward only."""

    lr: PositiveFloat = 30.0
    """Found by the paper's grid search; features of unnormalised scale want it (Sec. 4.1)."""
    weight_decay: NonNegativeFloat = 0.0
    """Sec. 4.1."""
    epochs: PositiveInt = 100
    """Sec. 4.1."""
    schedule: Schedule = Schedule(drops=(0.6, 0.8))
    """As in the released code: multiplied by 0.1 at epochs 60 and 80."""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world."""
        return self.shrink(epochs=6, lr_batch=256)


STAGE = Stage(
    name="classification.linear",
    summary="Train a linear classifier on frozen features (Sec. 4.1).",
    config=LinearConfig,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run="components.classification.train:run",
    resources=Resources(gpus=8, cpus=64, memory=256, shared_memory=64),
    resumable=True,
)

if __name__ == "__main__":
    main(__spec__.name)
