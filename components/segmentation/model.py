"""The FCN of Appendix A.5, and its artifact."""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from components.core.config import Config
from components.core.errors import DataError
from components.evaluation.semantic import IGNORED
from components.segmentation import DatasetName
from components.training import distributed
from components.training.learner import Batch, Losses
from components.vision.architectures import (
    ENCODER_WEIGHTS,
    HEAD_WEIGHTS,
    MODEL_CARD,
    Architecture,
)
from components.vision.backbones import (
    Backbone,
    build_backbone,
    dilate_res5,
    feature_maps,
    load_weights,
    read_tensors,
    write_encoder,
)
from components.vision.device import normalise

_STRIDE = 16  # of the output, or a multiple of it
_DILATION = 6  # of the two convolutions between backbone and classifier


class ModelCard(Config):
    """The content of `model.json`."""

    task: Literal["segmentation"] = "segmentation"
    architecture: Architecture
    channel_order: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float]
    """Subtracted from pixels of 0 to 255."""
    std: tuple[float, float, float]
    """Divides them afterwards."""
    dataset: DatasetName
    classes: tuple[str, ...]
    """In the order of the outputs."""
    channels: PositiveInt
    iterations: PositiveInt


class FCN(nn.Module):
    """A backbone with dilated res5, and a score for each class; the output stride is 16.

    It is called with a batch of `images`, (N, 3, H, W), and their `labels`, (N, H, W).
    On `resnet_digits`, whose strides are half of a ResNet-50's, the output stride is 8.
    """

    def __init__(self, backbone: Backbone, classes: int, channels: int) -> None:
        """Put a new head on a backbone, drawn from torch's current random state.

        Args:
            backbone: Taken as it is and dilated, not copied.
            classes: Outputs of the head.
            channels: Of its hidden convolutions.
        """
        super().__init__()
        dilate_res5(backbone.layer4)
        self.backbone = backbone
        self.head = nn.Sequential(
            *_dilated(backbone.num_features, channels),
            *_dilated(channels, channels),
            nn.Conv2d(channels, classes, kernel_size=1),
        )

    def logits(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to a score for each class and pixel, (N, classes, H, W)."""
        height, width = images.shape[2:]
        # Of 16 k + 1 pixels, as crops of 513 and 769 have, the first and the last are centres of
        # outputs, so that scores between them lie where they belong. Zeros are the mean colour.
        padded = F.pad(images, (0, (1 - width) % _STRIDE, 0, (1 - height) % _STRIDE))
        scores = self.head(feature_maps(self.backbone, padded)["res5"]).float()
        fine = F.interpolate(scores, padded.shape[2:], mode="bilinear", align_corners=True)
        return fine[:, :, :height, :width]

    def forward(self, batch: Batch) -> Losses:
        """Return this rank's part of the cross-entropy over all pixels that count."""
        # One row a pixel: the kernel for maps has no deterministic form on GPUs.
        scores = self.logits(batch["images"]).permute(0, 2, 3, 1).flatten(0, 2)
        labels = batch["labels"].flatten()
        # Ranks share images, but not pixels, evenly: the mean is that of the global batch.
        counted = distributed.gather((labels != IGNORED).sum()[None]).sum() / distributed.world()
        loss = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum")
        return loss / counted.clamp(min=1), {}


def normalised(images: Tensor, card: ModelCard) -> Tensor:
    """Turn bytes, RGB, (N, 3, H, W), into what the model takes."""
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
    (mean, std) = (tuple(value / 255 for value in triple) for triple in (card.mean, card.std))
    return normalise(pixels, mean, std)


def write_model(folder: Path, fcn: FCN, card: ModelCard) -> None:
    """Write the weights and `model.json`."""
    write_encoder(folder, fcn.backbone, fcn.head, card.model_dump(mode="json"))


def read_model(folder: Path) -> tuple[FCN, ModelCard]:
    """Read what `write_model` wrote.

    Raises:
        DataError: if a file is missing or damaged, or is of another kind of model.
    """
    path = folder / MODEL_CARD
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} does not describe a segmentation model: {error}; give the model of "
            "`python -m components.segmentation`"
        ) from None
    fcn = FCN(build_backbone(card.architecture), len(card.classes), card.channels)
    for module, name in ((fcn.backbone, ENCODER_WEIGHTS), (fcn.head, HEAD_WEIGHTS)):
        load_weights(module, read_tensors(folder / name), str(folder / name))
    return fcn, card


def _dilated(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(
        inputs, outputs, kernel_size=3, padding=_DILATION, dilation=_DILATION, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
