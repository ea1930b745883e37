"""What the detection stages share: their options and their ports; no torch here."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveInt

from components.core.stage import Port
from components.detection.libraries import Library
from components.detection.model import ModelConfig
from components.training.config import TrainingConfig
from components.vision.config import LoaderConfig

Task = Literal["coco", "voc", "keypoints", "densepose", "lvis", "cityscapes"]


class DetectionConfig(TrainingConfig):
    """Fine-tuning of a detector; a stage adds its data, its model and its schedule."""

    task: ClassVar[Task]

    library: Literal["auto", Library] = "auto"
    """which builds the model; the paper's detectron2 where it is installed"""
    model: ModelConfig = ModelConfig()
    iterations: PositiveInt = 90_000
    """length of training, steps"""
    shorter_side: tuple[PositiveInt, PositiveInt] = (640, 800)
    """an image's shorter side in training, least and most, pixels"""
    test_side: PositiveInt = 800
    """an image's shorter side in evaluation, pixels"""
    longer_side: PositiveInt = 1333
    """an image's longer side, at most, pixels"""
    precise_bn: NonNegativeInt = 200
    """batches from which batch statistics are computed anew before an evaluation; 0 for none"""
    loader: LoaderConfig = LoaderConfig()
    """how images reach the training process"""

    def miniature(self) -> Self:
        """Derive the experiment for the digits world."""
        raise AssertionError("each stage says what its miniature is")


INPUTS: Mapping[str, Port] = {
    "data": Port("Dataset", "images and annotations, the training and the validation split"),
    "backbone": Port("Model", "convert's artifact; from source `random` to train from scratch"),
}
OUTPUTS: Mapping[str, Port] = {
    "model": Port("Model", "detector.safetensors, model.json"),
    "predictions": Port("Dataset", "of the validation images, in the data set's result format"),
    "metrics": Port("Metrics", "AP and its parts, per_class.json, pictures"),
}
