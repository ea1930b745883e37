"""Stage: semantic segmentation by an FCN (Appendix A.5)."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from components.core.config import Incidental
from components.core.dataset import find_dataset, of_kind
from components.core.gpus import V100S, Gpus
from components.core.stage import Port, Resources, Stage
from components.training.config import Schedule, SupervisedConfig, more_iterations
from components.vision.config import LoaderConfig, Probability

DatasetName = Annotated[str, AfterValidator(of_kind("segmentation"))]
"""Of images with a class for every pixel: `moco data list` names them, and a folder that has one
of them, such as VOC's, stands for it."""


class SegmentationConfig(SupervisedConfig):
    """FCN fine-tuning (Appendix A.5); the defaults are for VOC.

    Images are normalised as the backbone wants it, and classes are the data's.
    """

    v100_rate: ClassVar[float] = 34.0
    """Images/s of one V100 at crop 513: classification's 330 at 224 pixels, over the 9.7 times
    as many multiplications."""

    dataset: DatasetName = "voc"
    """Which data set is learned and measured on, by its layout: VOC 2012, augmented."""
    channels: PositiveInt = 256
    """Of the two convolutions between backbone and classifier."""
    iterations: PositiveInt = 30_000
    """Steps of training."""
    batch_size: PositiveInt = 16
    """Images a step over all processes."""
    lr: PositiveFloat = 0.003
    """Learning rate for a batch of `lr_batch`."""
    lr_batch: PositiveInt = 16
    """The batch for which the paper states `lr`."""
    schedule: Schedule = Schedule(drops=(0.7, 0.9), by_epoch=False)
    """Divided by 10 at 70 % and 90 % of training."""
    crop: Annotated[int, Field(ge=17)] = 513
    """Side of the square that training sees of an image, pixels; what no image covers is padded
    and does not count."""
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)
    """Factor by which an image is resized before the crop, least and most."""
    flip_probability: Probability = 0.5
    """Chance of a horizontal flip."""
    evaluations: Annotated[PositiveInt, Incidental()] = 4
    """Times that the model is measured, evenly over training; the last is its end."""
    test_batch: PositiveInt = 4
    """Images that each process evaluates at once, if they are of one size."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach the training process."""

    @model_validator(mode="after")
    def _scale_ascends(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the least, {self.scale[0]}, is more than {self.scale[1]}")
        return self

    def miniature(self) -> Self:
        """Derive the experiment for the digits world: pictures of 96 pixels, a small ResNet.

        Digits are not mirrored, because a mirrored digit is none, and keep about their size. Few
        images want small batches, for many steps.
        """
        return self.derive(
            channels=128,
            iterations=280,
            batch_size=4,
            lr=0.025,
            lr_batch=4,
            crop=97,
            scale=(0.8, 1.25),
            flip_probability=0.0,
            evaluations=3,
            loader={"workers": 0, "cache": 256},
            log_every=10,
            checkpoint_seconds=20,
        )

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of the data."""
        return {"data": find_dataset(self.dataset, "segmentation").name}

    def gpu_hours(self, gpus: Gpus = V100S) -> float | None:
        """Estimate the hours of GPUs at full scale, by a measured rate or `v100_rate`."""
        if self.length_of is not None:
            return self.fit(self.counted).gpu_hours(gpus) if self.counted else None
        rate = gpus.per_second("segmentation", self.batch_size) or self.v100_rate
        return self.iterations * self.batch_size / (rate * (513 / self.crop) ** 2) / 3600

    @property
    def length(self) -> str:
        """How long training is, in words."""
        return f"{self.iterations:,} steps of {self.batch_size} images"

    def longer(self, factor: float) -> dict[str, Any]:
        """Return the changes of so many times as many iterations."""
        return more_iterations(self.iterations, self.schedule, factor)


def voc() -> SegmentationConfig:
    """Return the config for VOC: train_aug2012, measured on val2012."""
    return SegmentationConfig()


def cityscapes() -> SegmentationConfig:
    """Return the config for Cityscapes: train_fine, measured on val."""
    return SegmentationConfig(dataset="cityscapes", iterations=90_000, lr=0.01, crop=769)


DATA = Port("Dataset", "images with a class for every pixel, training and validation", foreign=True)
METRICS = Port("Metrics", "mIoU, each class's IoU, and pictures of some predictions")

STAGE = Stage(
    name="segmentation",
    summary="Fine-tune an FCN for semantic segmentation (Appendix A.5).",
    config=SegmentationConfig,
    inputs={"data": DATA, "backbone": Port("Model", "convert's artifact")},
    outputs={
        "model": Port("Model", "encoder.safetensors, head.safetensors, model.json"),
        "metrics": METRICS,
        "predictions": Port("Dataset", "a PNG of class numbers an image, as the servers take it"),
    },
    run="components.segmentation.train:run",
    resources=Resources(gpus=8, cpus=64, memory=128, shared_memory=32),
    resumable=True,
)

STAGES = ("evaluate",)
"""Beside it, those in modules of their own."""
