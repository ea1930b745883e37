"""Between the training loop and a model library: images and targets in, losses or predictions out.

A batch is a mapping of tensors, so that the loop can check and keep it. Those marked * are what
decides how much work there is; they stay in main memory, where nobody has to wait for them:

| key | |
|---|---|
| `images` | RGB, (N, 3, H, W), uint8, padded with zeros at the right and the bottom |
| `sizes` * | height and width of each image without padding, (N, 2), int64 |
| `originals` * | height and width of each image file, (N, 2), int64 |

and, where there are targets, the M instances of all images one after the other, crowds left out:

| key | |
|---|---|
| `counts` * | instances of each image, (N,), int64 |
| `boxes` | left, top, right, bottom, pixels of the resized image, (M, 4), float32 |
| `labels` | class indices from 0, (M,), int64 |
| `masks` | with masks: (M, H, W), bool |
| `keypoints` | with keypoints: x, y, visibility 0 to 2, (M, K, 3), float32 |
| `surfaces` | with DensePose: whether an instance is annotated, (M,), bool |
| `parts` | coarse part in each 256th of the box, 0 to 14, (M, 256, 256), uint8 |
| `points` | P points: x and y in 256ths of the box, part 1 to 24, u, v, (P, 5), float32 |
| `point_owners` | the instance (0 to M - 1) of each point, (P,), int64 |
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.training.learner import Batch, Losses
from components.vision.prediction import Prediction


@dataclass(frozen=True)
class Head:
    """What the data asks of a detector's heads.

    Attributes:
        classes: Classes, background not counted.
        keypoints: Keypoints of an instance; 0 if there are none.
    """

    classes: int
    keypoints: int = 0


class Detector(nn.Module, ABC):
    """A library's model; what is learned is in its parameters and buffers.

    It normalises images itself, by the mean and deviation that the backbone was converted with,
    before they are padded.
    """

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Return the sum of the losses, and each of them.

        An image without instances is learned from: it is all background.
        """

    @abstractmethod
    def predict(self, batch: Batch) -> Sequence[Prediction]:
        """Return what is in each image; in evaluation mode, without gradients."""


def normalise(images: Tensor, sizes: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract the mean and divide by the deviation (grey levels); padding stays zero.

    Args:
        images: As in a batch.
        sizes: As in a batch.
        mean: Of each channel.
        std: Of each channel.
    """
    centre, scale = _channels(tuple(mean), images.device), _channels(tuple(std), images.device)
    scaled = (images.float() - centre) / scale
    for image, (height, width) in zip(scaled, sizes.tolist(), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return scaled


@functools.lru_cache(maxsize=8)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a number for each channel, (3, 1, 1); made anew, it would be waited for each time."""
    return torch.tensor(values).view(3, 1, 1).to(device)


def split_counts(batch: Batch, key: str) -> Sequence[Tensor]:
    """Return a column of the instances for each image."""
    parts: Sequence[Tensor] = batch[key].split(batch["counts"].tolist())
    return parts
