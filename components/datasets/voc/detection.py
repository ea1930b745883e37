"""Pascal VOC 2007 and 2012: detection (Table 2)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from xml.etree import ElementTree

import numpy as np

from components.datasets.files import check_files
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet, plain_categories
from components.datasets.interface import DetectionReader
from components.datasets.parts import Part, compare_parts
from components.datasets.voc.lists import classes_of, scan_list
from components.vision.image_sets import Names

if TYPE_CHECKING:
    from components.datasets.results import Results

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
    """Scan lists of images and their XML, such as `2007/trainval` and `2012/trainval` together.

    Args:
        root: The folder with VOC2007 and VOC2012.
        parts: YEAR/LIST of each.
        findings: Where faults go.
    """
    objects = Objects()
    first = ""
    for part in parts:
        year, _, split = part.partition("/")
        folder = f"VOC{year}"
        own = classes_of(root / folder)
        first = first or folder
        if objects.classes and own != objects.classes:
            lone = ", ".join(sorted({*own} ^ {*objects.classes})[:5])
            findings.fault(f"{folder}/ImageSets/Main", f"lists other classes than {first}: {lone}")
        objects.classes = objects.classes or own
        for name in scan_list(root, f"{folder}/ImageSets/Main/{split}.txt", findings):
            objects.names.append(name)
            objects.files.append(f"{folder}/JPEGImages/{name}.jpg")
            _scan_objects(root, f"{folder}/Annotations/{name}.xml", objects, findings)
    if any(part.endswith("/trainval") for part in parts):
        for label in sorted({*range(len(objects.classes))} - {*objects.labels}):
            name = objects.classes[label]
            findings.fault(
                f"{first}/ImageSets/Main/{name}_trainval.txt",
                f"names a class, {name!r}, of which no training image shows an object: remove "
                "the list if it is none, or use more images",
            )
    return objects


class Voc(DetectionReader):
    """trainval of 2007 and 2012, and test of 2007."""

    title: ClassVar = "Pascal VOC"
    published: ClassVar = {
        **{"2007 trainval images": 5_011, "2007 test images": 4_952},
        **{"2012 trainval images": 11_540},
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("2007/trainval", "2012/trainval"),
        "val": ("2007/test",),
    }

    def scan(self, root: Path, split: str, findings: Findings) -> InstanceSet | None:
        """Report what is wrong with a split's lists and XML, and return it if nothing is."""
        before = len(findings.faults)
        objects = scan_voc(root, self.parts[split], findings)
        return instance_set(root, objects) if len(findings.faults) == before else None

    def check(self, root: Path, findings: Findings, *, decode: bool) -> None:
        """Find every fault: of the lists and their XML, then of the images."""
        parts = []
        for split in (self.training, self.validation):
            objects = scan_voc(root, self.parts[split], findings)
            for year, name in (part.split("/") for part in self.parts[split]):
                files = sum(file.startswith(f"VOC{year}/") for file in objects.files)
                findings.counts[f"{year} {name} images"] = files
            images = [
                (file, name, (width, height) if height else None)
                for file, name, (height, width) in zip(
                    objects.files, objects.names, objects.sizes, strict=True
                )
            ]
            check_files(root, images, findings, decode=decode)
            measured = split == self.validation
            parts.append(Part(self.shown(split), objects.classes, objects.files, measured))
        compare_parts(parts, findings)
        findings.compare(self.published, self.title)

    def shown(self, split: str) -> str:
        """Name the lists of a split."""
        return " and ".join(f"VOC{part}" for part in self.parts[split])

    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what measures boxes by the devkit's rules."""
        from components.datasets.voc.results import VocResults

        (part,) = self.parts[self.validation]
        return VocResults(images, part.rpartition("/")[2])


def instance_set(root: Path, objects: Objects) -> InstanceSet:
    """Make the common form of lists without faults.

    Corners count pixels from 1, both included; here boxes are continuous.
    """
    boxes = np.array(objects.boxes, np.float32).reshape(-1, 4)
    return InstanceSet(
        root=root,
        files=Names(objects.files),
        image_ids=Names(objects.names),
        sizes=np.array(objects.sizes, np.int32),
        starts=np.array(objects.ends, np.int64),
        boxes=boxes,
        labels=np.array(objects.labels, np.int32),
        crowd=np.zeros(len(boxes), np.bool_),
        difficult=np.array(objects.difficult, np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        ids=np.arange(1, len(boxes) + 1),
        categories=plain_categories(objects.classes),
    )


def _scan_objects(root: Path, file: str, objects: Objects, findings: Findings) -> None:
    """Take an image's annotation, or report what is wrong with it."""
    size = (0, 0)
    try:
        document = ElementTree.parse(root / file).getroot()  # noqa: S314
        size = (_side(document, "height"), _side(document, "width"))
        for number, element in enumerate(document.iter("object"), 1):
            try:
                _take_object(element, size, objects)
            except ValueError as error:
                findings.fault(file, str(error), f"object {number}")
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        findings.fault(file, f"is not a VOC annotation: {error}")
    objects.sizes.append(size)
    objects.ends.append(len(objects.labels))


def _take_object(element: ElementTree.Element, size: tuple[int, int], objects: Objects) -> None:
    """Take an object.

    Raises:
        ValueError: saying what is wrong with it.
    """
    name = _text(element, "name")
    if name not in objects.classes:
        raise ValueError(f"is a {name!r}, which is none of the {len(objects.classes)} classes")
    left, top, right, bottom = (_corner(element, corner) for corner in _CORNERS)
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
    objects.boxes.append((left - 1, top - 1, right, bottom))
    objects.labels.append(objects.classes.index(name))
    objects.difficult.append(_difficult(element))


def _difficult(element: ElementTree.Element) -> bool:
    """Return whether the metric passes over an object; tools that do not know leave it open.

    Raises:
        ValueError: if it is neither 0 nor 1 nor open.
    """
    said = element.findtext("difficult", "").strip().lower()
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


def _corner(element: ElementTree.Element, corner: str) -> float:
    text = _text(element, f"bndbox/{corner}")
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
