"""Readers of Pascal VOC 2007 and 2012: detection (Table 2) and segmentation (A.5)."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from components.vision.datasets.findings import Findings, strictly
from components.vision.datasets.instances import InstanceSet, plain_categories
from components.vision.datasets.layout import AUGMENTED, augmented_list, listed_names, voc_classes
from components.vision.datasets.semantic import SemanticSet
from components.vision.image_sets import Names

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class Objects:
    """What some lists of images show.

    Attributes:
        names: Of the images.
        files: Of the images, relative to the data set's folder.
        sizes: Height and width of each image; 0, 0 where its annotation cannot be used.
        boxes: Left, top, right, bottom of each object, from 0 and exclusive.
        labels: Class indices of the objects.
        difficult: Whether the metric passes over an object.
        ends: Objects up to each image.
        classes: Class names.
    """

    names: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    classes: tuple[str, ...] = ()


def scan_voc(root: Path, parts: Sequence[str], findings: Findings) -> Objects:
    """Scan lists of images and their XML; arguments as in `read_voc`."""
    found = Objects()
    first = ""
    for part in parts:
        year, _, split = part.partition("/")
        folder = f"VOC{year}"
        own = voc_classes(root / folder)
        first = first or folder
        if found.classes and own != found.classes:
            lone = ", ".join(sorted({*own} ^ {*found.classes})[:5])
            findings.fault(f"{folder}/ImageSets/Main", f"lists other classes than {first}: {lone}")
        found.classes = found.classes or own
        for name in scan_list(root, f"{folder}/ImageSets/Main/{split}.txt", findings):
            found.names.append(name)
            found.files.append(f"{folder}/JPEGImages/{name}.jpg")
            _scan_objects(root, f"{folder}/Annotations/{name}.xml", found, findings)
    if any(part.endswith("/trainval") for part in parts):
        for label in sorted({*range(len(found.classes))} - {*found.labels}):
            name = found.classes[label]
            findings.fault(
                f"{first}/ImageSets/Main/{name}_trainval.txt",
                f"names a class, {name!r}, of which no training image shows an object: remove "
                "the list if it is none, or use more images",
            )
    return found


def read_voc(root: Path, parts: Sequence[str]) -> InstanceSet:
    """Read lists of images and their XML, such as `2007/trainval` and `2012/trainval` together.

    Corners count pixels from 1, both included; here boxes are continuous.

    Args:
        root: The folder with VOC2007 and VOC2012.
        parts: YEAR/LIST of each.

    Raises:
        DataError: if a list, an XML file or a class is missing or wrong.
    """
    found = strictly(lambda findings: scan_voc(root, parts, findings), root, "voc")
    boxes = np.array(found.boxes, np.float32).reshape(-1, 4)
    return InstanceSet(
        root=root,
        files=Names(found.files),
        image_ids=Names(found.names),
        sizes=np.array(found.sizes, np.int32),
        starts=np.array(found.ends, np.int64),
        boxes=boxes,
        labels=np.array(found.labels, np.int32),
        crowd=np.zeros(len(boxes), np.bool_),
        difficult=np.array(found.difficult, np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        ids=np.arange(1, len(boxes) + 1),
        categories=plain_categories(found.classes),
    )


def scan_voc_segmentation(root: Path, split: str, findings: Findings) -> SemanticSet | None:
    """Scan the lists of VOC 2012's segmentation; arguments as in `read_voc_segmentation`."""
    folder = root / "VOC2012"
    path: Path | None = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    if split == "train_aug":
        path = augmented_list(folder)
    if path is None:
        findings.fault(
            f"VOC2012/ImageSets/{AUGMENTED[1]}.txt",
            f"is missing, and so are {' and '.join(f'{one}.txt' for one in AUGMENTED)} there: the "
            "10,582 images of VOC and SBD together that A.5 trains on",
        )
        return None
    labels = "SegmentationClassAug" if split == "train_aug" else "SegmentationClass"
    names = scan_list(root, str(path.relative_to(root)), findings)
    return SemanticSet(
        root=folder,
        files=Names(f"JPEGImages/{name}.jpg" for name in names),
        label_files=Names(f"{labels}/{name}.png" for name in names),
        classes=("background", *voc_classes(folder)),
    )


def read_voc_segmentation(root: Path, split: str) -> SemanticSet:
    """Read VOC 2012's segmentation: `train`, `val`, `trainval` or, for A.5, `train_aug`.

    The augmented labels are in SegmentationClassAug, the others in SegmentationClass.

    Raises:
        DataError: if the list is missing or empty.
    """
    return strictly(
        lambda findings: scan_voc_segmentation(root, split, findings), root, "voc_segmentation"
    )


def scan_list(root: Path, file: str, findings: Findings) -> list[str]:
    """Return the images that a text file lists, one a line; those of another form are reported."""
    try:
        names = listed_names((root / file).read_text("utf-8", errors="surrogateescape"))
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
        return []
    if not names:
        findings.fault(file, "is empty: an empty split trains and measures nothing")
    for name, count in Counter(names).items():
        if count > 1:
            findings.fault(file, f"is listed {count} times", name)
    if "" in names or any("\0" in name for name in names):
        findings.fault(file, "has a line that names no image")
    return [name for name in names if name and "\0" not in name]


def _scan_objects(root: Path, file: str, found: Objects, findings: Findings) -> None:
    """Take an image's annotation, or report what is wrong with it."""
    size = (0, 0)
    try:
        document = ElementTree.parse(root / file).getroot()  # noqa: S314
        size = (_side(document, "height"), _side(document, "width"))
        for number, one in enumerate(document.iter("object"), 1):
            try:
                _take_object(one, size, found)
            except ValueError as error:
                findings.fault(file, str(error), f"object {number}")
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        findings.fault(file, f"is not a VOC annotation: {error}")
    found.sizes.append(size)
    found.ends.append(len(found.labels))


def _take_object(one: ElementTree.Element, size: tuple[int, int], found: Objects) -> None:
    """Take an object.

    Raises:
        ValueError: saying what is wrong with it.
    """
    name = _text(one, "name")
    if name not in found.classes:
        raise ValueError(f"is a {name!r}, which is none of the {len(found.classes)} classes")
    left, top, right, bottom = (_corner(one, corner) for corner in _CORNERS)
    if right < left or bottom < top:
        raise ValueError(
            f"has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), without area"
        )
    height, width = size
    if right < 1 or bottom < 1 or left > width or top > height:
        raise ValueError(
            f"has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), "
            f"outside of its image of {width}×{height} pixels"
        )
    found.boxes.append((left - 1, top - 1, right, bottom))
    found.labels.append(found.classes.index(name))
    found.difficult.append(_difficult(one))


def _difficult(one: ElementTree.Element) -> bool:
    """Return whether the metric passes over an object; tools that do not know leave it open.

    Raises:
        ValueError: if it is neither 0 nor 1 nor open.
    """
    said = one.findtext("difficult", "").strip().lower()
    if said in ("1", "true"):
        return True
    if said in ("", "0", "false", "unspecified"):
        return False
    raise ValueError(f"has difficult {said!r} instead of 0 or 1")


def _side(document: ElementTree.Element, side: str) -> int:
    text = _text(document, f"size/{side}")
    pixels = float(text)
    if not (1 <= pixels < 2**31 and pixels.is_integer()):
        raise ValueError(f"its {side} is {text!r}, which is no number of pixels")
    return int(pixels)


def _corner(one: ElementTree.Element, corner: str) -> float:
    text = _text(one, f"bndbox/{corner}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 2**31:
        raise ValueError(f"has {corner} {text!r} instead of a number of pixels")
    return value


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{path}>")
    return text.strip()
