"""Checks COCO's layouts: instances and keypoints of 2017, DensePose of 2014, and LVIS v0.5."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.vision.check.files import check_files
from components.vision.check.findings import Findings
from components.vision.check.records import Record, read_records, record_size, report_repeated
from components.vision.datasets.layout import (
    EVALUATION_GEOMETRY,
    GEOMETRY_FOLDERS,
    TRAINING_GEOMETRY,
    lvis_file,
    lvis_image,
)
from components.vision.formats import is_image

INSTANCES = {
    **{"categories": 80, "train2017 images": 118_287, "val2017 images": 5_000},
    **{"train2017 annotations": 860_001, "val2017 annotations": 36_781},
}
KEYPOINTS = INSTANCES | {
    **{"categories": 1, "train2017 annotations": 262_465, "val2017 annotations": 11_004}
}
DENSEPOSE = {"train2014 image files": 82_783, "val2014 image files": 40_504}
LVIS = {
    **{"categories": 1_230, "train images": 57_263, "val images": 5_000},
    **{"train annotations": 693_958, "val annotations": 50_763},
}
TOLERATED = 0.001  # of the annotations, as the readers: train2017 has one box without area
_LISTS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_SURFACE = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
_RARE, _COMMON = 10, 100  # most training images of such a class

Look = Callable[[Record, Mapping[Any, Record]], Iterator[str]]
"""Finds what is wrong with an annotation, given the categories by id."""


def check_coco(root: Path, findings: Findings, decode: bool) -> None:
    """Check instances_{train,val}2017.json and their images."""
    for split in ("train2017", "val2017"):
        _check(root, f"annotations/instances_{split}.json", split, findings, decode=decode)
    findings.compare(INSTANCES, "COCO 2017")


def check_keypoints(root: Path, findings: Findings, decode: bool) -> None:
    """Check person_keypoints_{train,val}2017.json and their images."""
    for split in ("train2017", "val2017"):
        file = f"annotations/person_keypoints_{split}.json"
        _check(root, file, split, findings, decode=decode, look=_keypoint_faults)
    findings.compare(KEYPOINTS, "COCO 2017")


def check_densepose(root: Path, findings: Findings, decode: bool) -> None:
    """Check densepose_*2014.json, their images, and whether the geometry is there."""
    for split in ("train2014", "valminusminival2014", "minival2014"):
        images = "train2014" if split == "train2014" else "val2014"
        file = f"annotations/densepose_{split}.json"
        _check(root, file, split, findings, images=images, decode=decode, look=_surface_faults)
    for folder in ("train2014", "val2014"):
        findings.counts[f"{folder} image files"] = _count_images(root / folder)
    for files, use in ((TRAINING_GEOMETRY, "training"), (EVALUATION_GEOMETRY, "measuring")):
        for name in files:
            if not any((root / folder / name).is_file() for folder in GEOMETRY_FOLDERS):
                findings.fault(f"densepose/{name}", f"is missing: {use} needs it")
    findings.compare(DENSEPOSE, "COCO 2014")


def check_lvis(root: Path, findings: Findings, decode: bool) -> None:
    """Check lvis_v0.5_{train,val}.json and the images of 2017 that they name."""
    for split in ("train", "val"):
        path = lvis_file(root, split)
        if path is None:
            findings.fault(f"lvis_v0.5_{split}.json", "is missing")
            continue
        file = os.path.relpath(path, root)
        document = _check(root, file, split, findings, images="", decode=decode)
        if document:
            _check_frequencies(file, document, findings)
    findings.compare(LVIS, "LVIS v0.5")


def _check(
    root: Path,
    file: str,
    split: str,
    findings: Findings,
    *,
    decode: bool,
    images: str | None = None,
    look: Look | None = None,
) -> dict[str, list[Record]] | None:
    """Check an annotation file and its images; return its records.

    Args:
        root: The data set's folder.
        file: Relative to it.
        split: For the counts.
        findings: Where faults go.
        decode: Whether to decode images.
        images: Their folder; the split's by default, empty where each says its own.
        look: Finds further faults of an annotation.
    """
    document = read_records(root, file, _LISTS, findings)
    if document is None:
        return None
    records, annotations, categories = (document[name] for name in _LISTS)
    findings.counts["categories"] = max(findings.counts.get("categories", 0), len(categories))
    findings.counts[f"{split} images"] = len(records)
    findings.counts[f"{split} annotations"] = len(annotations)
    if not records:
        findings.fault(file, "has no images: an empty split trains and measures nothing")
    if "minival" not in file:  # published with some ids twice
        report_repeated(file, document, findings)
    _note_gaps(file, categories, findings)
    _check_annotations(file, document, look, findings)
    folder = split if images is None else images
    named = (
        (
            f"{folder}/{one['file_name']}" if folder else lvis_image(one, split),
            one["id"],
            record_size(one),
        )
        for one in records
    )
    check_files(root, named, findings, decode=decode)
    return document


def _check_annotations(
    file: str, document: Mapping[str, Sequence[Record]], look: Look | None, findings: Findings
) -> None:
    """Report annotations that name what is missing, and shapes that cannot be used."""
    images = {one["id"]: one for one in document["images"]}
    categories = {one["id"]: one for one in document["categories"]}
    shapes: list[tuple[str, Any]] = []
    for one in document["annotations"]:
        for field, known in (("image", images), ("category", categories)):
            if one[f"{field}_id"] not in known:
                message = f"names {field} {one[f'{field}_id']}, which does not exist"
                findings.fault(file, message, one["id"])
        shapes += [(message, one["id"]) for message in _shape_faults(one, images)]
        for message in look(one, categories) if look else ():
            findings.fault(file, message, one["id"])
    if len(shapes) <= TOLERATED * len(document["annotations"]):
        findings.notes += [f"{file} [{identity}]: {message}" for message, identity in shapes]
    else:
        for message, identity in shapes:
            findings.fault(file, message, identity)


def _shape_faults(one: Record, images: Mapping[Any, Record]) -> Iterator[str]:
    """Find what is wrong with an annotation's box and mask."""
    box = one["bbox"]
    if not (isinstance(box, list) and len(box) == 4):
        yield f"has a box of {box!r:.40} instead of left, top, width and height"
    elif not (box[2] > 0 and box[3] > 0):
        yield f"has a box of {box[2]}×{box[3]} pixels, without area"
    segmentation = one.get("segmentation") or []
    if isinstance(segmentation, dict):
        image = images.get(one["image_id"])
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if image and size != [image["height"], image["width"]]:
            yield f"has a mask of {size}, the image is {[image['height'], image['width']]}"
        elif isinstance(counts, list) and size and sum(counts) != size[0] * size[1]:
            yield f"has a mask whose runs are {sum(counts)} pixels, not {size[0] * size[1]}"
        return
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2:
            yield f"has a polygon of {len(polygon) / 2:g} points instead of 3"


def _keypoint_faults(one: Record, categories: Mapping[Any, Record]) -> Iterator[str]:
    names = categories.get(one["category_id"], {}).get("keypoints")
    points = one.get("keypoints")
    if not names:
        yield "is of a category that names no keypoints"
    elif not isinstance(points, list):
        yield "has no keypoints"
    elif len(points) != 3 * len(names):
        yield f"has {len(points) / 3:g} keypoints, the category names {len(names)}"
    elif not set(points[2::3]) <= {0, 1, 2}:
        yield "has a keypoint whose visibility is not 0, 1 or 2"


def _surface_faults(one: Record, _: Mapping[Any, Record]) -> Iterator[str]:
    if not any(field in one for field in (*_SURFACE, "dp_masks")):
        return
    missing = [field for field in (*_SURFACE, "dp_masks") if field not in one]
    if missing:
        yield f"has DensePose without {', '.join(missing)}"
        return
    if len({len(one[field]) for field in _SURFACE}) != 1:
        yield "has DensePose points whose coordinates are not equally many"
    if not all(1 <= part <= 24 for part in one["dp_I"]):
        yield "has a DensePose part that is not 1 to 24"
    if len(one["dp_masks"]) > 14:
        yield f"has {len(one['dp_masks'])} DensePose masks instead of 14"


def _note_gaps(file: str, categories: Sequence[Record], findings: Findings) -> None:
    ids = sorted(one["id"] for one in categories if isinstance(one["id"], int))
    if ids and ids != list(range(1, len(ids) + 1)):
        findings.notes.append(
            f"{file}: {len(ids)} category ids from {ids[0]} to {ids[-1]}, with gaps; that is fine"
        )


def _check_frequencies(
    file: str, document: Mapping[str, Sequence[Record]], findings: Findings
) -> None:
    """Check LVIS's groups of classes, and that no image has what it is said not to have."""
    ids = {one["id"] for one in document["categories"]}
    for one in document["categories"]:
        count, frequency = one.get("image_count"), one.get("frequency")
        if not isinstance(count, int) or frequency not in ("r", "c", "f"):
            findings.fault(file, "the category has no image_count or frequency", one["id"])
        elif frequency != ("r" if count <= _RARE else "c" if count <= _COMMON else "f"):
            message = f"the category is {frequency!r} with {count} training images"
            findings.fault(file, message, one["id"])
    present = {(one["image_id"], one["category_id"]) for one in document["annotations"]}
    for image in document["images"]:
        for field in ("neg_category_ids", "not_exhaustive_category_ids"):
            if field not in image:
                findings.fault(file, f"the image has no {field}", image["id"])
            for unknown in sorted(set(image.get(field, ())) - ids):
                message = f"{field} names category {unknown}, which does not exist"
                findings.fault(file, message, image["id"])
        for one in image.get("neg_category_ids", ()):
            if (image["id"], one) in present:
                message = f"has category {one}, which neg_category_ids says that it has not"
                findings.fault(file, message, image["id"])


def _count_images(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(is_image(entry.name) for entry in entries)
    except OSError:
        return 0
