"""The common form of detection data: columns for a whole set, one small view for an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.evaluation.body import SIDE
from components.vision import rle
from components.vision.image_sets import Names
from components.vision.masks import Mask

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SurfacePoints:
    """DensePose of one instance: points on a surface, and masks of coarse parts (A.3).

    Attributes:
        x: From the box's left edge, in 256ths of its width, (P,), float32.
        y: From its top edge, in 256ths of its height, (P,).
        part: Of the surface, 1 to 24, (P,), int64.
        u: Place on the part, 0 to 1, (P,).
        v: Place on the part, 0 to 1, (P,).
        masks: Compressed run lengths of each coarse part; empty where a part does not show.
    """

    x: Floats
    y: Floats
    part: npt.NDArray[np.int64]
    u: Floats
    v: Floats
    masks: tuple[str, ...]

    def parts(self) -> npt.NDArray[np.uint8]:
        """Return which coarse part shows where in the box, (256, 256); 0 for none."""
        shown = np.zeros((SIDE, SIDE), np.uint8)
        for number, text in enumerate(self.masks, 1):
            if text:
                shown[rle.decode(rle.uncompress(text), SIDE, SIDE)] = number
        return shown


@dataclass(frozen=True)
class Mirroring:
    """Where a point of each part goes when the image is mirrored, (24, 256, 256) each.

    Indexed by part less 1, v and u in 255ths; the part becomes that of the other side.
    """

    u: Floats
    v: Floats


@dataclass(frozen=True)
class Instances:
    """What an image shows, N instances in the order of the annotations.

    Attributes:
        path: The image file.
        image_id: What the data set calls the image.
        height: Of the image, pixels.
        width: Of the image, pixels.
        boxes: Left, top, right, bottom, pixels from the image's top left corner, (N, 4), float32.
        labels: Class indices without gaps, (N,), int32.
        crowd: Whether it stands for many that nobody told apart, (N,).
        difficult: Whether VOC's metric passes over it, (N,).
        areas: As annotated, square pixels, (N,), float32.
        ids: Of the annotations, (N,), int64.
        masks: One for each instance; empty if the set has none.
        keypoints: x, y and visibility (0 unlabelled, 1 hidden, 2 seen), (N, K, 3), float32;
            the centre of the first pixel is (0.5, 0.5).
        surfaces: DensePose of each instance, None where it has none; empty if the set has none.
        absent: LVIS: classes that are certainly not in the image, (A,), int32.
        not_exhaustive: LVIS: classes of which not every instance is annotated, (B,), int32.
    """

    path: str
    image_id: str
    height: int
    width: int
    boxes: Floats
    labels: npt.NDArray[np.int32]
    crowd: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    areas: Floats
    ids: npt.NDArray[np.int64]
    masks: tuple[Mask, ...] = ()
    keypoints: Floats | None = None
    surfaces: tuple[SurfacePoints | None, ...] = ()
    absent: npt.NDArray[np.int32] | None = None
    not_exhaustive: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Categories:
    """The classes of a data set, in the order of their labels.

    Attributes:
        names: Of each class.
        ids: What the data set calls them, ascending, gaps allowed, (C,), int64.
        image_counts: LVIS: training images of each class, (C,), int64; empty elsewhere.
        frequencies: LVIS: `r`, `c` or `f` of each class; empty elsewhere.
        keypoints: Names of an instance's keypoints.
        skeleton: Pairs of keypoint indices that a picture joins.
    """

    names: tuple[str, ...]
    ids: npt.NDArray[np.int64]
    image_counts: npt.NDArray[np.int64]
    frequencies: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def plain_categories(names: Sequence[str], ids: Sequence[int] | None = None) -> Categories:
    """Make classes that have names, and ids if they are not counted from 1."""
    numbers = np.array(range(1, len(names) + 1) if ids is None else ids, np.int64)
    return Categories(tuple(names), numbers, np.zeros(0, np.int64))


@dataclass(frozen=True)
class InstanceSet(Sequence[Instances]):
    """A detection data set of N images and M instances; image i has instances starts[i:i+2].

    Attributes:
        root: The folder that file names are relative to.
        files: File names of the images.
        image_ids: What the data set calls its images, numbers or names.
        sizes: Height and width of each image, (N, 2), int32.
        starts: Where each image's instances start, and the end, (N + 1,), int64.
        boxes: (M, 4), float32, like all columns below as in `Instances`.
        labels: (M,), int32.
        crowd: (M,).
        difficult: (M,).
        areas: (M,), float32.
        ids: (M,), int64.
        categories: The classes.
        mask: Makes the mask of an instance, given its image's and its own position; None
            if the set has no masks.
        masked: Which instances have one, (M,); None if all have that can.
        keypoints: (M, K, 3), float32, or None.
        surface: Makes the DensePose of an instance, or None.
        absent: LVIS: for each image its classes, or None.
        not_exhaustive: LVIS: for each image its classes, or None.
    """

    root: Path
    files: Sequence[str]
    image_ids: Sequence[Any]
    sizes: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    boxes: Floats
    labels: npt.NDArray[np.int32]
    crowd: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    areas: Floats
    ids: npt.NDArray[np.int64]
    categories: Categories
    mask: Callable[[int, int], Mask] | None = None
    masked: npt.NDArray[np.bool_] | None = None
    keypoints: Floats | None = None
    surface: Callable[[int], SurfacePoints | None] | None = None
    absent: Sequence[npt.NDArray[np.int32]] | None = None
    not_exhaustive: Sequence[npt.NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return f"{self.root}/{self.files[index]}"

    def __getitem__(self, index: Any) -> Any:
        """Return what an image shows."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        first, end = self.starts[index : index + 2].tolist()
        own = slice(first, end)
        mask, surface = self.mask, self.surface
        return Instances(
            path=self.path(index),
            image_id=str(self.image_ids[index]),
            height=int(self.sizes[index, 0]),
            width=int(self.sizes[index, 1]),
            boxes=self.boxes[own],
            labels=self.labels[own],
            crowd=self.crowd[own],
            difficult=self.difficult[own],
            areas=self.areas[own],
            ids=self.ids[own],
            masks=()
            if mask is None
            else tuple(mask(index, instance) for instance in range(first, end)),
            keypoints=None if self.keypoints is None else self.keypoints[own],
            surfaces=()
            if surface is None
            else tuple(surface(instance) for instance in range(first, end)),
            absent=None if self.absent is None else self.absent[index],
            not_exhaustive=None if self.not_exhaustive is None else self.not_exhaustive[index],
        )


def flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Find the keypoints that change places when an image is mirrored, by `left` and `right`.

    Raises:
        DataError: if a keypoint of one side has no partner.
    """
    pairs = []
    for index, name in enumerate(names):
        if "left" in name:
            partner = name.replace("left", "right")
            if partner not in names:
                raise DataError(f"keypoint {name!r} has no partner {partner!r}")
            pairs.append((index, names.index(partner)))
    return tuple(pairs)


def join(first: InstanceSet, second: InstanceSet) -> InstanceSet:
    """Put the images of a second set behind those of a first, which has the same classes.

    Raises:
        DataError: if the classes or their keypoints differ.
    """
    if (first.categories.names, first.categories.keypoints) != (
        second.categories.names,
        second.categories.keypoints,
    ):
        raise DataError(
            f"{first.root}: {first.files[0]} and {second.files[0]} are of sets with other classes: "
            f"{len(first.categories)} and {len(second.categories)}"
        )
    images, instances = len(first), len(first.labels)

    def mask(image: int, instance: int) -> Mask:
        known = first.mask if image < images else second.mask
        assert known is not None, "both have masks, or none has"
        inside = image < images
        return known(image - images * (not inside), instance - instances * (not inside))

    def surface(instance: int) -> SurfacePoints | None:
        known = first.surface if instance < instances else second.surface
        return known and known(instance - instances * (instance >= instances))

    columns: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("boxes", "labels", "crowd", "difficult", "areas", "ids", "sizes")
    }
    if first.masked is not None and second.masked is not None:
        columns["masked"] = np.concatenate([first.masked, second.masked])
    if first.keypoints is not None and second.keypoints is not None:
        columns["keypoints"] = np.concatenate([first.keypoints, second.keypoints])
    return replace(
        first,
        files=Names([*first.files, *second.files]),
        image_ids=[*first.image_ids, *second.image_ids],
        starts=np.concatenate([first.starts[:-1], second.starts + instances]),
        mask=mask if first.mask and second.mask else None,
        surface=surface if first.surface and second.surface else None,
        **columns,
    )
