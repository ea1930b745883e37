"""Readers of Pascal VOC 2007 and 2012: detection (Table 2) and segmentation (A.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from components.core.errors import DataError
from components.vision.datasets.instances import InstanceSet, plain_categories, refuse_many
from components.vision.datasets.layout import AUGMENTED, augmented_list, listed_names, voc_classes
from components.vision.datasets.semantic import SemanticSet
from components.vision.image_sets import Names


@dataclass
class _Objects:
    """Rows of every object read so far."""

    boxes: list[tuple[float, ...]]
    labels: list[int]
    difficult: list[bool]
    ends: list[int]
    sizes: list[tuple[int, int]]
    faults: list[str]


def read_voc(root: Path, parts: Sequence[str]) -> InstanceSet:
    """Read lists of images and their XML, such as `2007/trainval` and `2012/trainval` together.

    Corners count pixels from 1, both included; here boxes are continuous.

    Args:
        root: The folder with VOC2007 and VOC2012.
        parts: YEAR/LIST of each.

    Raises:
        DataError: if a list, an XML file or a class is missing or wrong.
    """
    found = _Objects([], [], [], [0], [], [])
    names: list[str] = []
    files: list[str] = []
    classes: tuple[str, ...] = ()
    for part in parts:
        year, _, split = part.partition("/")
        folder = root / f"VOC{year}"
        own = voc_classes(folder)
        if classes and own != classes:
            raise DataError(f"{folder} has other classes than {root}/VOC{parts[0][:4]}: {own}")
        classes = own
        ids = read_list(folder / "ImageSets" / "Main" / f"{split}.txt")
        for name in ids:
            _read_objects(folder / "Annotations" / f"{name}.xml", classes, found)
        names += ids
        files += [f"VOC{year}/JPEGImages/{name}.jpg" for name in ids]
    refuse_many(root, found.faults, len(found.labels) + len(found.faults), 0)
    boxes = np.array(found.boxes, np.float32).reshape(-1, 4)
    return InstanceSet(
        root=root,
        files=Names(files),
        image_ids=Names(names),
        sizes=np.array(found.sizes, np.int32),
        starts=np.array(found.ends, np.int64),
        boxes=boxes,
        labels=np.array(found.labels, np.int32),
        crowd=np.zeros(len(boxes), np.bool_),
        difficult=np.array(found.difficult, np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        ids=np.arange(1, len(boxes) + 1),
        categories=plain_categories(classes),
    )


def read_voc_segmentation(root: Path, split: str) -> SemanticSet:
    """Read VOC 2012's segmentation: `train`, `val`, `trainval` or, for A.5, `train_aug`.

    The augmented labels are in SegmentationClassAug, the others in SegmentationClass.

    Raises:
        DataError: if the list is missing or empty.
    """
    folder = root / "VOC2012"
    plain = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    path = augmented_list(folder) if split == "train_aug" else plain
    if path is None:
        raise DataError(
            f"{folder}/ImageSets has no {' or '.join(f'{name}.txt' for name in AUGMENTED)}: "
            "the 10,582 images are VOC's and SBD's together"
        )
    labels = "SegmentationClassAug" if split == "train_aug" else "SegmentationClass"
    names = read_list(path)
    return SemanticSet(
        root=folder,
        files=Names(f"JPEGImages/{name}.jpg" for name in names),
        label_files=Names(f"{labels}/{name}.png" for name in names),
        classes=("background", *voc_classes(folder)),
    )


def read_list(path: Path) -> list[str]:
    """Read a text file with one image a line.

    Raises:
        DataError: if it is missing or empty.
    """
    try:
        found = listed_names(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not found:
        raise DataError(f"{path} is empty: an empty split trains and measures nothing")
    return found


def _read_objects(path: Path, classes: tuple[str, ...], found: _Objects) -> None:
    try:
        document = ElementTree.parse(path).getroot()  # noqa: S314
        width, height = (int(_text(document, f"size/{side}")) for side in ("width", "height"))
        found.sizes.append((height, width))
        for one in document.iter("object"):
            name = _text(one, "name")
            if name not in classes:
                raise DataError(f"{path}: {name!r} is none of the classes {', '.join(classes)}")
            left, top, right, bottom = (
                float(_text(one, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if right < left or bottom < top:
                found.faults.append(f"{path.name}: {name} has a box without area")
                continue
            found.boxes.append((left - 1, top - 1, right, bottom))
            found.labels.append(classes.index(name))
            found.difficult.append(one.findtext("difficult", "0").strip() == "1")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(
            f"{path} is not a VOC annotation: {error}; `moco data check voc` lists every fault"
        ) from None
    found.ends.append(len(found.labels))


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{path}>")
    return text.strip()
