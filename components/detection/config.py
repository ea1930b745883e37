"""What the detection stages share: their options and their ports; no torch here."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from components.core.config import Incidental
from components.core.dataset import find_dataset, of_kind
from components.core.gpus import V100S, Gpus, Work
from components.core.stage import Port, Resources
from components.detection.libraries import INSTALL, Library, packages, resolve
from components.detection.model import Fraction, ModelConfig, RpnConfig
from components.training.config import Schedule, SupervisedConfig, more_iterations
from components.vision.config import LoaderConfig, Probability

DatasetName = Annotated[str, AfterValidator(of_kind("detection"))]
"""Of a data set with instances: `moco data list` names them."""

PUBLISHED_GPUS = 8
"""V100s that detectron2's published seconds of an iteration are of."""
MASK_RCNN_SECONDS: Mapping[Work, float] = {"fpn": 0.261, "c4": 0.584}
"""Of an iteration of Mask R-CNN without synchronised batch norm, as published."""
SYNC_BN = 0.345 / 0.261
"""What synchronised batch norm costs, by detectron2's Mask R-CNN R50-FPN with and without."""


class DetectionConfig(SupervisedConfig):
    """Fine-tuning of a detector; a stage adds its data, its model and its schedule.

    The defaults are those of all the released detection configs. The number of classes is
    the data's, and the architecture is the backbone's.
    """

    v100_seconds: ClassVar[Mapping[str, float]]
    """Of an iteration without synchronised batch norm, as published, by kind of model."""

    dataset: DatasetName
    """Which data set is learned and measured on, by its layout."""
    library: Literal["auto", Library] = "auto"
    """Which builds the model; the paper's detectron2 where it is installed."""
    model: ModelConfig = ModelConfig()
    """The detector on the backbone."""
    iterations: PositiveInt = 90_000
    """Length of training, steps."""
    batch_size: PositiveInt = 16
    """Images a step over all processes."""
    lr: PositiveFloat = 0.02
    """Learning rate for a batch of `lr_batch`; it is scaled linearly to `batch_size`."""
    lr_batch: PositiveInt = 16
    """The batch for which the paper states `lr`."""
    norm_weight_decay: NonNegativeFloat = 0.0
    """Of the parameters of normalisation, as in detectron2; all others have `weight_decay`."""
    schedule: Schedule = Schedule(drops=(2 / 3, 8 / 9), by_epoch=False, warmup=1000)
    """The learning rate over training."""
    shorter_sides: tuple[PositiveInt, ...] = (640, 672, 704, 736, 768, 800)
    """An image's shorter side in training, one of these at random, pixels."""
    test_side: PositiveInt = 800
    """An image's shorter side in evaluation, pixels."""
    longer_side: PositiveInt = 1333
    """An image's longer side, at most, pixels."""
    flip: Probability = 0.5
    """Chance that an image is mirrored in training."""
    alike: PositiveInt = 2
    """Neighbours in a batch that are all upright or all lying: images of a GPU, which pads less."""
    repeat_threshold: Fraction = 0.0
    """Share of images below which a class has its images repeated (LVIS); 0 for no repeats."""
    precise_bn: NonNegativeInt = 200
    """Batches from which batch statistics are computed anew before an evaluation; 0 for none."""
    without_geometry: bool = False
    """DensePose: train without mirrored images and measure boxes only, where its files of the \
body's geometry are not at hand."""
    evaluations: Annotated[PositiveInt, Incidental()] = 4
    """Times that the detector is measured, evenly over training; the last is its end."""
    test_batch: PositiveInt = 4
    """Images that each process evaluates at once, if they are of one size."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach the training process."""

    @model_validator(mode="after")
    def _library_has_it(self) -> Self:
        if self.library == "torchvision" and self.model.surface == "deeplab":
            raise ValueError(
                "model.surface deeplab is a head of detectron2 alone: take library auto or "
                "detectron2, or surface legacy"
            )
        return self

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of the data."""
        return {"data": find_dataset(self.dataset, "detection").name}

    def requires(self) -> Mapping[str, str]:
        """Name what the model library brings, if it is not torchvision."""
        way = f"{INSTALL}; torchvision's models are there with library torchvision"
        return dict.fromkeys(packages(resolve(self.library, self.model), self.model), way)

    def gpu_hours(self, gpus: Gpus = V100S) -> float | None:
        """Estimate the hours of GPUs that training takes; evaluation comes on top.

        The basis is what detectron2 publishes of the nearest model on 8 V100s. Where Mask R-CNN
        was measured, a model takes as much more or less than it as it does there.
        """
        if self.length_of is not None:
            return self.fit(self.counted).gpu_hours(gpus) if self.counted else None
        tuned = self.model.backbone_norm == "tuned" or self.model.neck_norm
        seconds = self.v100_seconds[self.model.kind] * (SYNC_BN if tuned else 1)
        work: Work = "fpn" if self.model.kind == "fpn" else "c4"
        if rate := gpus.per_second(work, self.batch_size):
            of_mask_rcnn = MASK_RCNN_SECONDS[work] * SYNC_BN
            seconds *= (self.lr_batch / rate / PUBLISHED_GPUS) / of_mask_rcnn
        hours = self.iterations * seconds * PUBLISHED_GPUS / 3600
        return hours * self.batch_size / self.lr_batch

    @property
    def length(self) -> str:
        """How long training is, in words."""
        return f"{self.iterations:,} steps of {self.batch_size} images"

    def longer(self, factor: float) -> dict[str, Any]:
        """Return the changes of so many times as many iterations."""
        return more_iterations(self.iterations, self.schedule, factor)

    def shrink(self, *, model: Mapping[str, Any] | None = None, **changes: Any) -> Self:
        """Derive the experiment for the digits world, whose pictures have 96 pixels.

        Digits are not mirrored where their class is asked for, because a mirrored digit is none.

        Args:
            model: Changes of the model beyond its sizes.
            **changes: Whatever else differs.
        """
        small: dict[str, Any] = {
            "iterations": 200,
            "batch_size": 4,
            "lr": 0.02,
            "lr_batch": 4,
            "clip": 5.0,
            "schedule": self.schedule.derive(warmup=20).model_dump(mode="json"),
            "shorter_sides": (64,),
            "test_side": 64,
            "longer_side": 86,
            "flip": 0.0,
            "precise_bn": min(self.precise_bn, 10),
            "evaluations": 3,
            "test_batch": 10,
            "loader": {"workers": 0, "cache": 64},
            "log_every": 10,
            "checkpoint_seconds": 20,
        }
        parts = {**self.model.model_dump(mode="json"), **MINIATURE, **(model or {})}
        if self.model.kind == "c4":
            parts["pooling"] = 8
        return self.derive(**small | {"model": parts} | changes)

    def miniature(self) -> Self:
        """Derive the experiment for the digits world."""
        return self.shrink()


MINIATURE: Mapping[str, Any] = {
    "rpn": RpnConfig(
        anchor_sizes=(12, 20, 32, 44, 64),
        batch=64,
        proposals_before=(100, 50),
        proposals=(50, 25),
    ).model_dump(mode="json"),
    "rois": 16,
    "positive": 0.5,
    "detections": 20,
    "sampling": 2,
    "neck_channels": 24,
    "head_width": 96,
    "mask_channels": 16,
    "keypoint_channels": 32,
    "surface_channels": 32,
}
"""Sizes of a model for pictures of 96 pixels, shown smaller still."""

INPUTS: Mapping[str, Port] = {
    "data": Port(
        "Dataset", "images and annotations, the training and the validation split", foreign=True
    ),
    "backbone": Port("Model", "convert's artifact; from source `random` to train from scratch"),
}
OUTPUTS: Mapping[str, Port] = {
    "model": Port("Model", "detector.safetensors, model.json"),
    "predictions": Port("Dataset", "of the validation images, in the data set's result format"),
    "metrics": Port("Metrics", "AP and its parts, per_class.json, pictures"),
}
RESOURCES = Resources(gpus=8, cpus=64, memory=256, shared_memory=64)
IMAGE = "detectron2"
"""The paper's library, on top of the image `torch`."""
