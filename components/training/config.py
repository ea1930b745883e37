"""What every training stage can be told; no torch here, so that a plan can be checked anywhere."""

from abc import abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from components.core.config import Config, Incidental
from components.vision.config import ALL, Percent


class Schedule(Config):
    """The learning rate over training, as a factor of its base value."""

    kind: Literal["step", "cosine", "every"] = "step"
    """Drops at fixed points, half a cosine down to zero, or a drop again and again."""
    drops: tuple[float, ...] = ()
    """Fractions of training after which the rate is multiplied by `gamma` (kind `step`)."""
    gamma: PositiveFloat = 0.1
    """Factor of a drop."""
    every: PositiveInt | None = None
    """Iterations from one drop to the next (kind `every`)."""
    by_epoch: bool = True
    """Change only between epochs, as the released code does."""
    warmup: NonNegativeInt = 0
    """Iterations over which the rate grows linearly from `warmup_factor`."""
    warmup_factor: PositiveFloat = 0.001
    """Share of the rate at the first iteration of a warm-up."""

    @model_validator(mode="after")
    def _drops_in_order(self) -> "Schedule":
        if any(not 0 < drop < 1 for drop in self.drops) or list(self.drops) != sorted(self.drops):
            raise ValueError(f"drops {self.drops} must be growing fractions between 0 and 1")
        if (self.every is None) == (self.kind == "every"):
            raise ValueError("every: iterations between drops, of kind `every` and of no other")
        return self


class TrainingConfig(Config):
    """Options that all training stages share; a stage adds how long to train, and on what."""

    batch_size: PositiveInt = 256
    """Images a step over all processes."""
    lr: PositiveFloat = 0.03
    """Learning rate for a batch of `lr_batch`; it is scaled linearly to `batch_size`."""
    lr_batch: PositiveInt = 256
    """The batch for which the paper states `lr`."""
    momentum: NonNegativeFloat = 0.9
    """Of SGD."""
    weight_decay: NonNegativeFloat = 1e-4
    """Of SGD, for all parameters."""
    schedule: Schedule = Schedule()
    """The learning rate over training."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient; null for none."""
    seed: NonNegativeInt = 0
    """Of initialisation, order and augmentation; a trial is a seed."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; weights are always fp32. `auto` is bf16 on a GPU that has it,
    fp16 on an older one, fp32 on a processor. The paper's is fp32, whose convolutions are TF32 on a
    GPU that has it, as torch's defaults are."""
    channels_last: Literal["auto"] | bool = "auto"
    """Keep activations in channels-last memory; `auto` does on a GPU, where it is faster."""
    cuda_graph: Annotated[Literal["auto"] | bool, Incidental()] = "auto"
    """Launch a whole step at once, as a CUDA graph; `auto` does on a GPU, if all of the stage's
    batches are alike."""
    compile: bool = False
    """Compile the model with torch.compile; wants a C compiler."""
    deterministic: bool = False
    """Only deterministic kernels on a GPU, so that a resumed run equals an uninterrupted one."""
    processes: PositiveInt | None = None
    """Training processes of a node; one for each GPU by default, one on a machine without."""
    checkpoint_seconds: Annotated[PositiveFloat, Incidental()] = 60.0
    """Time between checkpoints: what a killed run loses at most."""
    log_every: Annotated[PositiveInt, Incidental()] = 50
    """Steps between rows of the history."""

    @property
    def scaled_lr(self) -> float:
        """The learning rate for this batch (linear scaling, Goyal et al. 2017)."""
        return self.lr * self.batch_size / self.lr_batch


class SupervisedConfig(TrainingConfig):
    """Options of trainings that learn from labels; a stage adds how long."""

    labels: Percent = ALL
    """Percent of the training images whose labels are learned from. `seed` draws them; smaller
    shares are parts of larger ones, and every class is in each."""
    length_of: PositiveInt | None = None
    """Training images that the stated length is for: with fewer or more of them it changes by the
    root of their ratio, and a batch has no more than there are. null keeps the length."""
    counted: Annotated[PositiveInt | None, Incidental()] = None
    """How many there are, where a plan has counted them; only its estimates depend on that."""

    def fit(self, images: int) -> Self:
        """Derive what suits a number of images: the length, and a batch that they fill.

        The length stays without `length_of`, and a batch of all labels, too: it is as configured.

        The root is between as many steps and as many epochs for every data set, and near what the
        paper does: 90k steps of 16 images on COCO's 118k (Sec. 4.2) are 14k on Cityscapes' 3k,
        where it takes 24k of 8.

        Args:
            images: How many labelled ones there are to train on.
        """
        changes: dict[str, Any] = {}
        if self.length_of is not None:
            changes = self.longer((images / self.length_of) ** 0.5)
            changes |= {"length_of": None, "counted": images}
        elif self.labels == ALL:
            return self
        batch = self.batch_size
        while batch > images:
            batch //= 2
        return self.derive(batch_size=batch, **changes)

    @property
    @abstractmethod
    def length(self) -> str:
        """How long training is, in words."""

    @abstractmethod
    def longer(self, factor: float) -> dict[str, Any]:
        """Return the changes by which a training of as many images as the factor squared is fitted.

        It has so many times the steps.
        """


def more_iterations(iterations: int, schedule: Schedule, factor: float) -> dict[str, Any]:
    """Return so many times as many iterations, of which the warm-up takes a tenth at most."""
    wanted = max(1, round(iterations * factor))
    warmup = min(schedule.warmup, wanted // 10)
    return {
        "iterations": wanted,
        "schedule": schedule.derive(warmup=warmup).model_dump(mode="json"),
    }
