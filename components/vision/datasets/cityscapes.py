"""Readers of Cityscapes with fine annotations: instances (Table 6) and segmentation (A.5)."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.vision.datasets.findings import Findings, strictly
from components.vision.datasets.instances import InstanceSet, plain_categories
from components.vision.datasets.layout import (
    CITYSCAPES_IMAGE,
    CITYSCAPES_INSTANCES,
    CITYSCAPES_LABELS,
)
from components.vision.datasets.masks import Mask, ValueMask
from components.vision.datasets.semantic import IGNORED, SemanticSet
from components.vision.image_sets import Names

CLASSES = {
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17},
    **{"traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23},
    **{"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31},
    **{"motorcycle": 32, "bicycle": 33},
}
"""The 19 classes that count, in the order of their training numbers, with their ids in files."""
THINGS = tuple(list(CLASSES)[11:])
"""The eight of them that are told apart into instances."""

_NUMBERS = 34  # of the classes in labelIds, those that do not count included
_INSTANCE = 1000  # an instance's number is this times its class, plus a count


@dataclass(frozen=True)
class _Found:
    """Instances of one image."""

    size: tuple[int, int]
    values: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    areas: npt.NDArray[np.int64]


def scan_cityscapes(root: Path, split: str, findings: Findings) -> InstanceSet | None:
    """Scan leftImg8bit/SPLIT/CITY and the instance numbers in gtFine/SPLIT/CITY."""
    before = len(findings.faults)
    stems = scan_stems(root, split, findings)
    names = [f"gtFine/{split}/{stem}{CITYSCAPES_INSTANCES}" for stem in stems]
    paths = [f"{root}/{name}" for name in names]
    ids = np.array([CLASSES[name] for name in THINGS])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked_at = list(pool.map(lambda path: _find(path, ids), paths))
    found: list[_Found] = []
    for name, one in zip(names, looked_at, strict=True):
        if isinstance(one, _Found):
            found.append(one)
        else:
            findings.fault(name, one)
    if len(findings.faults) > before:
        return None
    values = np.concatenate([one.values for one in found])
    starts = np.cumsum([0, *(len(one.values) for one in found)])

    def mask(image: int, instance: int) -> Mask:
        return ValueMask(paths[image], int(values[instance]))

    return InstanceSet(
        root=root,
        files=Names(f"leftImg8bit/{split}/{stem}{CITYSCAPES_IMAGE}" for stem in stems),
        image_ids=Names(stem.partition("/")[2] for stem in stems),
        sizes=np.array([one.size for one in found], np.int32),
        starts=starts,
        boxes=np.concatenate([one.boxes for one in found]),
        labels=np.searchsorted(ids, _class_ids(values)).astype(np.int32),
        crowd=values < _INSTANCE,
        difficult=np.zeros(len(values), np.bool_),
        areas=np.concatenate([one.areas for one in found]).astype(np.float32),
        ids=np.arange(1, len(values) + 1),
        categories=plain_categories(THINGS, ids.tolist()),
        mask=mask,
    )


def read_cityscapes(root: Path, split: str) -> InstanceSet:
    """Read leftImg8bit/SPLIT/CITY and the instance numbers in gtFine/SPLIT/CITY.

    Boxes are those of the pixels, so the pictures are read, several at once; a group
    that nobody told apart is a crowd.

    Raises:
        DataError: if the folders or an image's instances are missing, or are no instance numbers.
    """
    return strictly(lambda findings: scan_cityscapes(root, split, findings), root, "cityscapes")


def scan_cityscapes_segmentation(root: Path, split: str, findings: Findings) -> SemanticSet:
    """Scan leftImg8bit/SPLIT/CITY; the class numbers are in gtFine/SPLIT/CITY."""
    stems = scan_stems(root, split, findings)
    lookup = np.full(256, IGNORED, np.uint8)
    lookup[list(CLASSES.values())] = np.arange(len(CLASSES))
    return SemanticSet(
        root=root,
        files=Names(f"leftImg8bit/{split}/{stem}{CITYSCAPES_IMAGE}" for stem in stems),
        label_files=Names(f"gtFine/{split}/{stem}{CITYSCAPES_LABELS}" for stem in stems),
        classes=tuple(CLASSES),
        lookup=lookup,
        numbers=_NUMBERS,
    )


def read_cityscapes_segmentation(root: Path, split: str) -> SemanticSet:
    """Read leftImg8bit/SPLIT/CITY and the class numbers in gtFine/SPLIT/CITY.

    Raises:
        DataError: if the folders are missing.
    """
    return strictly(
        lambda findings: scan_cityscapes_segmentation(root, split, findings), root, "cityscapes"
    )


def scan_stems(root: Path, split: str, findings: Findings) -> list[str]:
    """Return CITY/NAME of every image, sorted; hidden files are passed over."""
    folder = root / "leftImg8bit" / split
    stems = city_stems(folder, CITYSCAPES_IMAGE)
    if not stems:
        findings.fault(
            f"leftImg8bit/{split}",
            f"has no CITY/*{CITYSCAPES_IMAGE}: is leftImg8bit_trainvaltest unpacked?",
        )
    for stem in sorted({*city_stems(root / "gtFine" / split, CITYSCAPES_LABELS)} - {*stems}):
        name = f"gtFine/{split}/{stem}{CITYSCAPES_LABELS}"
        findings.fault(name, "has no image in leftImg8bit")
    return stems


def city_stems(folder: Path, ending: str) -> list[str]:
    """Return CITY/NAME of every file with an ending, sorted; hidden ones are passed over."""
    paths = sorted(folder.glob(f"[!.]*/[!.]*{ending}"))
    return [f"{path.parent.name}/{path.name.removesuffix(ending)}" for path in paths]


def _class_ids(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(values < _INSTANCE, values, values // _INSTANCE)


def _find(path: str, ids: npt.NDArray[np.int64]) -> _Found | str:
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
    if picture.max(initial=0) >= _INSTANCE * 256 or picture.min(initial=0) < 0:
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
    return _Found(
        size=picture.shape,
        values=values[counted].astype(np.int64),
        boxes=boxes[counted],
        areas=areas[counted],
    )


_BITS = {"1": 1, "L": 8, "P": 8}  # by Pillow's modes
_MAKE = "cityscapesscripts makes it from gtFine's polygons (json2instanceImg)"
