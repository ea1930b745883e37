"""Checks Pascal VOC's layouts: detection of 2007 and 2012, and segmentation of 2012."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from components.vision.check.files import Size, check_files
from components.vision.check.findings import Findings
from components.vision.check.records import repeated
from components.vision.datasets.layout import augmented_list, listed_names, voc_classes

DETECTION = {
    **{"2007 trainval images": 5_011, "2007 test images": 4_952},
    **{"2012 trainval images": 11_540},
}
SEGMENTATION = {"train images": 1_464, "val images": 1_449, "train_aug images": 10_582}
_LISTS = (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def check_voc(root: Path, findings: Findings, decode: bool) -> None:
    """Check the lists that Table 2 trains and measures on, their XML and their images."""
    lists = {}
    for year, split in _LISTS:
        file = f"VOC{year}/ImageSets/Main/{split}.txt"
        names = lists[year, split] = _read_list(root, file, findings)
        findings.counts[f"{year} {split} images"] = len(names)
        classes = voc_classes(root / f"VOC{year}")
        sizes = [
            _check_xml(root, f"VOC{year}/Annotations/{name}.xml", classes, findings)
            for name in names
        ]
        images = [
            (f"VOC{year}/JPEGImages/{name}.jpg", name, size)
            for name, size in zip(names, sizes, strict=True)
        ]
        check_files(root, images, findings, decode=decode)
    _report_shared(lists["2007", "test"], lists["2007", "trainval"], "VOC2007 test", findings)
    findings.compare(DETECTION, "Pascal VOC")


def check_voc_segmentation(root: Path, findings: Findings, decode: bool) -> None:
    """Check the lists that A.5 trains and measures on, their labels and their images."""
    folder = root / "VOC2012"
    augmented = augmented_list(folder)
    if augmented is None:
        findings.fault(
            "VOC2012/ImageSets/Segmentation/train_aug.txt",
            "is missing: the 10,582 images of VOC and SBD together that A.5 trains on",
        )
    lists = {}
    for split in ("train", "val", "train_aug"):
        file = f"VOC2012/ImageSets/Segmentation/{split}.txt"
        if split == "train_aug":
            if augmented is None:
                continue
            file = str(augmented.relative_to(root))
        names = lists[split] = _read_list(root, file, findings)
        findings.counts[f"{split} images"] = len(names)
        labels = "SegmentationClassAug" if split == "train_aug" else "SegmentationClass"
        for folder_name, ending in (("JPEGImages", "jpg"), (labels, "png")):
            files = [(f"VOC2012/{folder_name}/{name}.{ending}", name, None) for name in names]
            check_files(root, files, findings, decode=decode)
    for split in ("train", "train_aug"):
        _report_shared(lists.get(split, []), lists["val"], f"{split} of segmentation", findings)
    findings.compare(SEGMENTATION, "Pascal VOC's segmentation")


def _read_list(root: Path, file: str, findings: Findings) -> list[str]:
    try:
        names = listed_names((root / file).read_text("utf-8", errors="surrogateescape"))
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
        return []
    if not names:
        findings.fault(file, "is empty: an empty split trains and measures nothing")
    for name, count in repeated(names):
        findings.fault(file, f"is listed {count} times", name)
    return names


def _report_shared(
    names: Sequence[str], others: Sequence[str], what: str, findings: Findings
) -> None:
    shared = sorted(set(names) & set(others))
    if shared:
        findings.fault(
            what,
            f"{len(shared)} images are in what is trained on and in what is measured",
            shared[0],
        )


def _check_xml(root: Path, file: str, classes: Sequence[str], findings: Findings) -> Size | None:
    """Check an image's annotation; return the size that it says."""
    try:
        document = ElementTree.parse(root / file).getroot()  # noqa: S314
        size = (int(_text(document, "size/width")), int(_text(document, "size/height")))
        for number, one in enumerate(document.iter("object"), 1):
            for message in _object_faults(one, classes, size):
                findings.fault(file, message, f"object {number}")
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
    except (ElementTree.ParseError, ValueError) as error:
        findings.fault(file, f"is not a VOC annotation: {error}")
    else:
        return size
    return None


def _object_faults(one: ElementTree.Element, classes: Sequence[str], size: Size) -> Iterator[str]:
    name = _text(one, "name")
    if name not in classes:
        yield f"is a {name!r}, which is none of the {len(classes)} classes"
    left, top, right, bottom = (float(_text(one, f"bndbox/{corner}")) for corner in _CORNERS)
    if right < left or bottom < top:
        yield f"has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), without area"
    elif left < 1 or top < 1 or right > size[0] or bottom > size[1]:
        yield f"has a box that leaves the image of {size[0]}×{size[1]} pixels"


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> has no <{path}>")
    return text.strip()
