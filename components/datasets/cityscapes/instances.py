"""Cityscapes with fine annotations: instances (Table 6) and segmentation (A.5)."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.datasets.cityscapes.files import IMAGE_ENDING, scan_stems
from components.datasets.files import image_size
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet, plain_categories
from components.datasets.interface import DetectionReader
from components.evaluation.cityscapes import (
    CLASSES,
    ENDINGS,
    INSTANCE,
    THINGS,
)
from components.vision.image_sets import Names
from components.vision.masks import Mask, ValueMask

if TYPE_CHECKING:
    from components.datasets.results import Results

_BITS = {"1": 1, "L": 8, "P": 8}  # by Pillow's modes
_MAKE = "cityscapesscripts makes it from gtFine's polygons (json2instanceImg)"


@dataclass(frozen=True)
class _ImageInstances:
    """Instances of one image."""

    size: tuple[int, int]
    values: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    areas: npt.NDArray[np.int64]


class CityscapesInstances(DetectionReader):
    """leftImg8bit/SPLIT/CITY, with instance numbers in gtFine/SPLIT/CITY."""

    title: ClassVar = "Cityscapes with fine annotations"
    published: ClassVar = {
        **{"train images": 2_975, "val images": 500},
        **{"train cities": 18, "val cities": 3},
    }

    def scan(self, root: Path, split: str, findings: Findings) -> InstanceSet | None:
        """Report what is wrong with a split's instances, and return them if nothing is.

        Boxes are those of the pixels, so the pictures are read, several at once; a group that
        nobody told apart is a crowd.
        """
        before = len(findings.faults)
        stems = scan_stems(root, split, findings)
        names = [f"gtFine/{split}/{stem}{ENDINGS['instances']}" for stem in stems]
        paths = [f"{root}/{name}" for name in names]
        ids = np.array(THINGS)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            looked_at = list(pool.map(lambda path: _find(path, ids), paths))
        images: list[_ImageInstances] = []
        for name, outcome in zip(names, looked_at, strict=True):
            if isinstance(outcome, _ImageInstances):
                images.append(outcome)
            else:
                findings.fault(name, outcome)
        if len(findings.faults) > before:
            return None
        values = np.concatenate([image.values for image in images])
        starts = np.cumsum([0, *(len(image.values) for image in images)])

        def mask(image: int, instance: int) -> Mask:
            return ValueMask(paths[image], int(values[instance]))

        return InstanceSet(
            root=root,
            files=Names(f"leftImg8bit/{split}/{stem}{IMAGE_ENDING}" for stem in stems),
            image_ids=Names(stem.partition("/")[2] for stem in stems),
            sizes=np.array([image.size for image in images], np.int32),
            starts=starts,
            boxes=np.concatenate([image.boxes for image in images]),
            labels=np.searchsorted(ids, _class_ids(values)).astype(np.int32),
            crowd=values < INSTANCE,
            difficult=np.zeros(len(values), np.bool_),
            areas=np.concatenate([image.areas for image in images]).astype(np.float32),
            ids=np.arange(1, len(values) + 1),
            categories=plain_categories([CLASSES[class_id] for class_id in THINGS], THINGS),
            mask=mask,
        )

    def count(self, split: str, images: InstanceSet, findings: Findings) -> None:
        """Say how much there is of a split."""
        super().count(split, images, findings)
        cities = {Path(file).parent for file in images.files}
        findings.counts[f"{split} cities"] = len(cities)

    def look(
        self, root: Path, split: str, images: InstanceSet, findings: Findings, *, decode: bool
    ) -> None:
        """Report images of another size than their instances; the labels' reader does the rest."""
        for index, file in enumerate(images.files):
            size = image_size(root / file)
            height, width = images.sizes[index].tolist()
            if size and size != (width, height):
                findings.fault(
                    f"gtFine/{split}/{file.split('/', 2)[2].removesuffix(IMAGE_ENDING)}",
                    f"has instances of {width}×{height} pixels, the image is {size[0]}×{size[1]}",
                )

    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what measures masks by Cityscapes' own metric."""
        from components.datasets.cityscapes.results import CityscapesResults

        return CityscapesResults(images, root / "gtFine" / "val")


def _class_ids(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(values < INSTANCE, values, values // INSTANCE)


def _find(path: str, ids: npt.NDArray[np.int64]) -> _ImageInstances | str:
    """Find the instances in a picture of instance numbers, or say what is wrong with it."""
    try:
        with Image.open(path) as image:
            bits, picture = _BITS.get(image.mode, 16), np.array(image, np.int32)
    except FileNotFoundError:
        return f"does not exist; {_MAKE}"
    except (OSError, ValueError, SyntaxError) as error:
        return f"cannot be read: {error}"
    if picture.ndim != 2:
        return f"has colours instead of instance numbers; {_MAKE}"
    if bits < 16:
        return f"has {bits} bits a pixel, which hold no instance numbers; {_MAKE}"
    if picture.max(initial=0) >= INSTANCE * 256 or picture.min(initial=0) < 0:
        return f"has the number {picture.max()}, which is no instance; {_MAKE}"
    y, x = np.nonzero(picture >= ids[0])
    values, place = np.unique(picture[y, x], return_inverse=True)
    boxes = np.zeros((len(values), 4), np.float32)
    boxes[:, :2] = np.inf
    for column, coordinate in ((0, x), (1, y)):
        np.minimum.at(boxes[:, column], place, coordinate)
        np.maximum.at(boxes[:, column + 2], place, coordinate + 1)
    counted = np.isin(_class_ids(values.astype(np.int64)), ids)
    areas = np.bincount(place, minlength=len(values))
    return _ImageInstances(
        size=picture.shape,
        values=values[counted].astype(np.int64),
        boxes=boxes[counted],
        areas=areas[counted],
    )
