"""From a data set to batches: random crops for training, whole images for measuring."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from components.core.errors import DataError
from components.datasets.semantic import SemanticSet
from components.evaluation.semantic import IGNORED
from components.segmentation import SegmentationConfig
from components.training import distributed
from components.vision.batch import CorruptImage
from components.vision.config import LoaderConfig
from components.vision.cropping import resize_image
from components.vision.decoding import Pixels, read_image, read_size
from components.vision.loading import BatchLoader
from components.vision.reading import Reader
from components.vision.sampling import AlikeSampler, EpochSampler, Key
from components.vision.views import view_generator

Labels = npt.NDArray[np.uint8]


class SegmentationSample(NamedTuple):
    """An image, (H, W, 3), and the class of each pixel, (H, W)."""

    image: Pixels
    labels: Labels

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.image.nbytes + self.labels.nbytes


@dataclass(frozen=True)
class SegmentationBatch:
    """N samples.

    Attributes:
        images: Bytes, RGB, (N, 3, H, W) in channels-last memory.
        labels: Bytes, (N, H, W); 255 does not count.
        indices: Positions in the set, (N,).
        corrupt: Samples that could not be read while this batch was made.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    corrupt: tuple[CorruptImage, ...] = ()

    def to(self, device: torch.device) -> Self:
        """Copy to a device, without waiting if the batch is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Copy into page-locked memory; torch's loader calls it."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        images, labels = change(self.images), change(self.labels)
        return replace(self, images=images, labels=labels, indices=change(self.indices))


class Window(NamedTuple):
    """What is random about a crop: a part of an image, pixels, and what becomes of it."""

    top: int
    left: int
    height: int
    width: int
    to_height: int
    to_width: int
    flip: bool


def crops(
    images: SemanticSet, config: SegmentationConfig, padding: tuple[float, ...]
) -> BatchLoader[SegmentationBatch]:
    """Make this rank's loader of random crops, full batches in an order of its own each epoch.

    Args:
        images: The set.
        config: Crop, batch, seed, loading.
        padding: The colour beyond an image, RGB in 0..255.
    """
    dataset = _Samples(images, config.seed, config.loader.cache << 20, config, padding)
    sampler = EpochSampler(
        len(images),
        config.batch_size,
        seed=config.seed,
        rank=distributed.rank(),
        world=distributed.world(),
    )
    return BatchLoader(dataset, sampler, config.loader, pin_memory=torch.cuda.is_available())


def whole_images(
    images: SemanticSet, config: LoaderConfig, batch_size: int = 1
) -> BatchLoader[SegmentationBatch]:
    """Make this rank's loader of whole images, those of one size together; the last may be empty.

    What is measured has to be complete: the first unreadable one is refused.
    """
    sizes = np.array([read_size(images.path(index)) for index in range(len(images))])
    sampler = AlikeSampler(sizes, batch_size, rank=distributed.rank(), world=distributed.world())
    strict = config.derive(max_corrupt_fraction=0.0)
    return BatchLoader(_Samples(images), sampler, strict, pin_memory=torch.cuda.is_available())


def draw_window(
    config: SegmentationConfig, height: int, width: int, generator: np.random.Generator
) -> Window:
    """Draw scale, place and flip for an image of height × width pixels.

    The part that the crop would cut from the resized image is cut before, so that no more
    than it is resized.
    """
    scale, top, left, flip = generator.random(4).tolist()
    factor = config.scale[0] + scale * (config.scale[1] - config.scale[0])
    part = round(config.crop / factor)
    sizes = [
        (min(part, side), config.crop if part <= side else min(config.crop, round(side * factor)))
        for side in (height, width)
    ]
    (cut_height, to_height), (cut_width, to_width) = sizes
    return Window(
        top=int(top * (height - cut_height + 1)),
        left=int(left * (width - cut_width + 1)),
        height=cut_height,
        width=cut_width,
        to_height=max(1, to_height),
        to_width=max(1, to_width),
        flip=flip < config.flip_probability,
    )


def cut(sample: SegmentationSample, window: Window) -> SegmentationSample:
    """Cut, resize and flip; classes are those of the nearest pixels."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    image = resize_image(sample.image[rows, columns], window.to_height, window.to_width)
    size = (window.to_width, window.to_height)
    labels = cv2.resize(sample.labels[rows, columns], size, interpolation=cv2.INTER_NEAREST_EXACT)
    return (
        SegmentationSample(image[:, ::-1], labels[:, ::-1])
        if window.flip
        else SegmentationSample(image, labels)
    )


class _Samples(Dataset[SegmentationBatch]):
    """Crops if there is a config, else whole images."""

    def __init__(
        self,
        images: SemanticSet,
        seed: int = 0,
        cache: int = 0,
        config: SegmentationConfig | None = None,
        padding: tuple[float, ...] = (0, 0, 0),
    ) -> None:
        self.images = images
        self.seed = seed
        self.config = config
        self.padding = torch.tensor(padding).round().to(torch.uint8)
        self._reader = Reader(
            images, self._read, seed=seed, replace=config is not None, cache=cache
        )

    def __getitems__(self, keys: Sequence[Key]) -> SegmentationBatch:
        corrupt: list[CorruptImage] = []
        indices: list[int] = []
        samples: list[SegmentationSample] = []
        for epoch, wanted in keys:
            drawn = self._reader.find(epoch, wanted, corrupt)
            if drawn is None:
                continue
            index, sample = drawn
            if self.config is not None:
                generator = view_generator(self.seed, epoch, wanted, 0)
                height, width = sample.labels.shape
                sample = cut(sample, draw_window(self.config, height, width, generator))
            indices.append(index)
            samples.append(sample)
        images, labels = self._stack(samples)
        return SegmentationBatch(
            images, labels, torch.tensor(indices, dtype=torch.int64), tuple(corrupt)
        )

    def _stack(self, samples: Sequence[SegmentationSample]) -> tuple[Tensor, Tensor]:
        """Put crops into padded squares, or take whole images, all of one size, as they are."""
        if self.config is not None:
            height = width = self.config.crop
        else:
            height, width = samples[0].labels.shape if samples else (0, 0)
        images = self.padding.expand(len(samples), height, width, 3).contiguous()
        labels = torch.full((len(samples), height, width), IGNORED, dtype=torch.uint8)
        for number, sample in enumerate(samples):
            high, wide = sample.labels.shape
            images[number, :high, :wide].numpy()[:] = sample.image
            labels[number, :high, :wide].numpy()[:] = sample.labels
        return images.permute(0, 3, 1, 2), labels

    def _read(self, index: int) -> SegmentationSample:
        sample = SegmentationSample(read_image(self.images.path(index)), self.images.labels(index))
        if sample.image.shape[:2] != sample.labels.shape:
            raise DataError(
                f"the image is {sample.image.shape[:2]}, its labels "
                f"{sample.labels.shape} (height, width)"
            )
        return sample
