"""What the three classification stages share: their options and their ports."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, PositiveInt

from components.core.dataset import find_dataset, of_kind
from components.core.gpus import V100S, Gpus, Work
from components.core.stage import Port
from components.training.config import SupervisedConfig
from components.vision.config import (
    AugmentationConfig,
    EvaluationConfig,
    LoaderConfig,
    Percent,
    fine_tuning,
)

Task = Literal["imagenet", "inaturalist", "linear"]
DatasetName = Annotated[str, AfterValidator(of_kind("classification"))]
"""Of images with classes: `moco data list` names them."""


class ClassificationConfig(SupervisedConfig):
    """Training of a classifier on a backbone; each stage adds what the paper says of it.

    The number of classes is the data's, and the architecture is the backbone's.
    """

    task: ClassVar[Task]
    frozen: ClassVar[bool] = False
    """Whether only the classifier learns, and the backbone stays as it is to the last bit."""
    paper_images: ClassVar[int] = 1_281_167
    """Training images of the paper's data set."""
    work: ClassVar[Work] = "finetune"
    v100_rate: ClassVar[float] = 330.0
    """Images/s of one V100 with ResNet-50 at 224 pixels in fp32, forward and backward."""

    dataset: DatasetName = "imagenet"
    """Which data set is learned and measured on, by its layout."""
    held_out: Percent | None = None
    """Where the data has no validation split, percent of each class that are held out as one, the
    same for all trainings; null refuses such data."""
    epochs: PositiveInt = 100
    """Passes over the training images."""
    evaluate_every: PositiveInt = 1
    """Epochs between evaluations on the validation images; the last one always is."""
    augmentation: AugmentationConfig = fine_tuning()
    """The random view of an image in training."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """The one view of an image in validation."""
    loader: LoaderConfig = LoaderConfig()
    """How images reach the training process."""

    def layouts(self) -> Mapping[str, str]:
        """Return the layout of the data."""
        return {"data": find_dataset(self.dataset, "classification").name}

    def gpu_hours(self, gpus: Gpus = V100S) -> float | None:
        """Estimate the hours of GPUs that the paper's data set takes, or the images counted.

        The basis is a rate of ours where one was measured, else `v100_rate`, which this GPU
        is known for; evaluations and a loader that cannot keep up come on top.
        """
        if self.length_of is not None:
            return self.fit(self.counted).gpu_hours(gpus) if self.counted else None
        rate = gpus.per_second(self.work, self.batch_size) or self.v100_rate
        return self.epochs * (self.counted or self.paper_images) / rate / 3600

    @property
    def length(self) -> str:
        """How long training is, in words."""
        return f"{self.epochs:,} epochs, {self.batch_size} images a step"

    def longer(self, factor: float) -> dict[str, Any]:
        """Return the epochs of so many times the steps, of as many images as the factor squared.

        Few images have many epochs, of which at most twenty are evaluated.
        """
        epochs = max(1, round(self.epochs / factor))
        return {"epochs": epochs, "evaluate_every": max(self.evaluate_every, epochs // 20)}

    def shrink(self, *, epochs: int, lr_batch: int) -> Self:
        """Derive the experiment for the digits world; rate, schedule and optimiser stay.

        Digits are not flipped, because a mirrored digit is none, and a crop keeps most of one.

        Args:
            epochs: Length of training.
            lr_batch: The batch that the paper's learning rate is taken to be for. Less than
                the batch of 64 makes up for a training that is a thousand times shorter.
        """
        return self.derive(
            batch_size=64,
            lr_batch=lr_batch,
            epochs=epochs,
            augmentation=self.augmentation.derive(
                crop=48, crop_area=(0.8, 1.0), flip_probability=0.0
            ).model_dump(mode="json"),
            evaluation=self.evaluation.derive(resize=48, crop=48).model_dump(mode="json"),
            loader={"workers": 0, "cache": 256},
            log_every=10,
            checkpoint_seconds=20,
        )


INPUTS: Mapping[str, Port] = {
    "data": Port("Dataset", "labelled images, the training and the validation split", foreign=True),
    "backbone": Port("Model", "convert's artifact; from source `random` to train from scratch"),
}
OUTPUTS: Mapping[str, Port] = {
    "model": Port("Model", "encoder.safetensors, head.safetensors, model.json"),
    "metrics": Port(
        "Metrics", "top-1 and top-5 accuracy over epochs, per_class.json, predictions.jsonl"
    ),
}
