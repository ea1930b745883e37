"""Detection data for one process of a training: batches of `components.detection.interface`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from components.core.errors import ConfigError
from components.datasets.instances import InstanceSet, flip_pairs
from components.datasets.loading import detection_reader
from components.detection.config import DetectionConfig
from components.detection.order import ImageOrder
from components.detection.splits import learnable, repeat_factors
from components.detection.views import (
    DetectionView,
    Targets,
    Wanted,
    draw_view,
    fit,
    show_image,
    show_instances,
)
from components.training import distributed
from components.vision.batch import CorruptImage
from components.vision.decoding import CorruptImageError, Pixels, read_image
from components.vision.loading import BatchLoader
from components.vision.reading import Reader
from components.vision.sampling import AlikeSampler, EpochSampler, Key, Sampler
from components.vision.views import view_generator

_EMPTY: Mapping[str, tuple[tuple[int, ...], torch.dtype]] = {
    "images": ((0, 3, 1, 1), torch.uint8),
    "sizes": ((0, 2), torch.int64),
    "originals": ((0, 2), torch.int64),
}
_IN_MAIN_MEMORY = frozenset({"sizes", "originals", "counts"})


@dataclass(frozen=True)
class DetectionBatch:
    """N images on their way from the loading processes to the training device.

    Attributes:
        columns: As `components.detection.interface` says.
        indices: Positions in the set, (N,).
        corrupt: Images that could not be read while this batch was made.
    """

    columns: Mapping[str, Tensor]
    indices: Tensor
    corrupt: tuple[CorruptImage, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """Copy the columns that belong there to a device, without waiting if they are pinned."""
        return {
            name: column if name in _IN_MAIN_MEMORY else column.to(device, non_blocking=True)
            for name, column in self.columns.items()
        }

    def pin_memory(self) -> Self:
        """Copy into page-locked memory; torch's loader calls it."""
        pinned = {name: column.pin_memory() for name, column in self.columns.items()}
        return replace(self, columns=pinned)


class TrainingData(Dataset[DetectionBatch]):
    """Images with their instances, differently shown each time.

    An image that cannot be read is replaced by another one, drawn from its own epoch and place.
    """

    def __init__(
        self,
        images: InstanceSet,
        kept: Sequence[int],
        order: ImageOrder,
        config: DetectionConfig,
        wanted: Wanted,
    ) -> None:
        """Prepare to show images.

        Args:
            images: The whole set.
            kept: Those that training takes.
            order: Which of the kept ones is at a place of an epoch.
            config: How they are shown.
            wanted: What the model learns.
        """
        self.images = images
        self.kept = kept
        self.order = order
        self.config = config
        self.wanted = wanted
        self._reader = Reader(
            self, self._read, seed=config.seed, replace=True, cache=config.loader.cache << 20
        )

    def __len__(self) -> int:
        return len(self.kept)

    def path(self, index: int) -> str:
        """Return the path of a kept image."""
        return self.images.path(int(self.kept[index]))

    def __getitems__(self, keys: Sequence[Key]) -> DetectionBatch:
        """Make the batch of these epochs and places; torch's loader calls it with a whole batch."""
        shown: list[Pixels] = []
        targets: list[Targets] = []
        originals: list[tuple[int, int]] = []
        indices: list[int] = []
        corrupt: list[CorruptImage] = []
        for epoch, place in keys:
            drawn = self._reader.find(epoch, int(self.order(epoch)[place]), corrupt)
            if drawn is None:
                continue
            index, pixels = int(self.kept[drawn[0]]), drawn[1]
            # By place, not by image: LVIS repeats images within an epoch.
            generator = view_generator(self.config.seed, epoch, place, 0)
            height, width = pixels.shape[:2]
            view = draw_view(self.config, height, width, generator)
            shown.append(show_image(pixels, view))
            targets.append(show_instances(self.images[index], view, self.wanted))
            originals.append((height, width))
            indices.append(index)
        columns = _stack_images(shown, originals) | _stack_targets(targets, shown)
        return DetectionBatch(columns, torch.tensor(indices, dtype=torch.int64), tuple(corrupt))

    def _read(self, index: int) -> Pixels:
        return _read(self.images, int(self.kept[index]))


class TestData(Dataset[DetectionBatch]):
    """Images without their instances, each shown in one way; unreadable ones are left out."""

    __test__ = False  # for pytest, which would take it for a test

    def __init__(self, images: InstanceSet, config: DetectionConfig) -> None:
        """Prepare to show images.

        Args:
            images: The whole set.
            config: How they are shown.
        """
        self.images = images
        self.config = config
        self._reader = Reader(
            images,
            lambda index: _read(images, index),
            seed=config.seed,
            replace=False,
            cache=config.loader.cache << 20,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: Sequence[Key]) -> DetectionBatch:
        """Make the batch of these images; torch's loader calls it with a whole batch."""
        shown: list[Pixels] = []
        originals: list[tuple[int, int]] = []
        indices: list[int] = []
        corrupt: list[CorruptImage] = []
        for epoch, wanted in keys:
            drawn = self._reader.find(epoch, wanted, corrupt)
            if drawn is None:
                continue
            index, pixels = drawn
            height, width = pixels.shape[:2]
            size = fit(height, width, self.config.test_side, self.config.longer_side)
            shown.append(show_image(pixels, DetectionView(*size)))
            originals.append((height, width))
            indices.append(index)
        columns = _stack_images(shown, originals)
        return DetectionBatch(columns, torch.tensor(indices, dtype=torch.int64), tuple(corrupt))


def training_loader(
    images: InstanceSet,
    config: DetectionConfig,
    root: Path,
    kept: npt.NDArray[np.int64] | None = None,
) -> BatchLoader[DetectionBatch]:
    """Make this rank's loader of training batches: the same ones for any number of processes.

    Args:
        images: The whole set.
        config: The stage's.
        root: The data set's folder, for DensePose's geometry.
        kept: Images to learn from, ascending; by default all that show something to learn.

    Raises:
        DataError: if there is nothing to learn from, or DensePose's geometry is missing.
        ConfigError: if the images do not fill a batch, or ranks cannot share one.
    """
    if kept is None:
        kept = learnable(detection_reader(config.dataset), images)
    heights, widths = images.sizes[kept].T
    order = ImageOrder(
        repeat_factors(images, kept, config.repeat_threshold),
        widths > heights,
        seed=config.seed,
        alike=config.alike,
    )
    wanted = wanted_of(images, config, root)
    if config.flip and wanted.surfaces and wanted.mirroring is None:
        config = config.derive(flip=0)
    sampler = EpochSampler(
        order.length,
        config.batch_size,
        rank=distributed.rank(),
        world=distributed.world(),
        shuffle=False,  # the order is in the places
    )
    return _loader(TrainingData(images, kept.tolist(), order, config, wanted), sampler, config)


def test_loader(images: InstanceSet, config: DetectionConfig) -> BatchLoader[DetectionBatch]:
    """Make this rank's loader of its share of the images, each once; a share may be empty.

    Images of a batch are resized to one size, so that each is seen as it is alone.
    """
    shown = [
        fit(height, width, config.test_side, config.longer_side)
        for height, width in images.sizes.tolist()
    ]
    sampler = AlikeSampler(
        np.array(shown), config.test_batch, rank=distributed.rank(), world=distributed.world()
    )
    return _loader(TestData(images, config), sampler, config)


test_loader.__test__ = False  # type: ignore[attr-defined]


def wanted_of(images: InstanceSet, config: DetectionConfig, root: Path) -> Wanted:
    """Return what a model learns of a set.

    Raises:
        ConfigError: if it should learn what the set does not have.
        DataError: if images are to be mirrored, and DensePose's geometry is missing.
    """
    model = config.model
    for name, learned, has in (
        ("masks", model.masks, images.mask),
        ("keypoints", model.keypoints, images.keypoints),
        ("surface", model.surface != "none", images.surface),
    ):
        if learned and has is None:
            raise ConfigError(f"model.{name}: {config.dataset} has none to learn from")
    surfaces = model.surface != "none"
    mirroring = None
    if surfaces and config.flip and not config.without_geometry:
        mirroring = detection_reader(config.dataset).mirroring(root)
    pairs = flip_pairs(images.categories.keypoints) if model.keypoints else None
    return Wanted(model.masks, pairs, surfaces, mirroring)


def _loader(
    data: TrainingData | TestData, sampler: Sampler, config: DetectionConfig
) -> BatchLoader[DetectionBatch]:
    return BatchLoader(data, sampler, config.loader, pin_memory=torch.cuda.is_available())


def _read(images: InstanceSet, index: int) -> Pixels:
    """Read an image.

    Raises:
        CorruptImageError: if it cannot be read, or is not of the annotated size.
    """
    pixels = read_image(images.path(index))
    height, width = images.sizes[index].tolist()
    if pixels.shape[:2] != (height, width):
        raise CorruptImageError(
            f"it has {pixels.shape[1]}×{pixels.shape[0]} pixels, its annotations {width}×{height}"
        )
    return pixels


def _stack_images(
    shown: Sequence[Pixels], originals: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    """Put images into one tensor, padded with zeros at the right and the bottom."""
    if not shown:
        return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in _EMPTY.items()}
    sizes = torch.tensor([image.shape[:2] for image in shown])
    height, width = sizes.amax(0).tolist()
    images = torch.zeros(len(shown), 3, height, width, dtype=torch.uint8)
    for place, image in enumerate(shown):
        images[place, :, : image.shape[0], : image.shape[1]] = torch.from_numpy(
            np.ascontiguousarray(image.transpose(2, 0, 1))
        )
    return {"images": images, "sizes": sizes, "originals": torch.tensor(originals)}


def _stack_targets(targets: Sequence[Targets], shown: Sequence[Pixels]) -> dict[str, Tensor]:
    """Put the instances of all images one after the other."""
    if not targets:
        return {}
    counts = [len(target["labels"]) for target in targets]
    columns = {"counts": torch.tensor(counts)}
    if "point_owners" in targets[0]:
        firsts = np.cumsum([0, *counts[:-1]])
        for target, first in zip(targets, firsts, strict=True):
            target["point_owners"] = target["point_owners"] + first
    for name in targets[0]:
        if name != "masks":
            columns[name] = torch.from_numpy(np.concatenate([target[name] for target in targets]))
    if "masks" in targets[0]:
        height, width = np.max([image.shape[:2] for image in shown], axis=0)
        masks = torch.zeros(sum(counts), height, width, dtype=torch.bool)
        first = 0
        for target in targets:
            count, own_height, own_width = target["masks"].shape
            masks[first : first + count, :own_height, :own_width] = torch.from_numpy(
                target["masks"]
            )
            first += count
        columns["masks"] = masks
    return columns
