"""Refuses annotations in COCO's layout that an evaluator would misread."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from components.core.errors import DataError
from components.evaluation.figures import refuse

Kind = Literal["bbox", "segm", "keypoints"]
"""What is compared: boxes, masks or keypoints."""
Record = dict[str, Any]

_LISTS = {
    "images": ("id", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}
_NEEDED = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
_COORDINATES = 6  # of a triangle: an evaluator takes four for a box


def check_annotations(document: Any, kind: Kind, source: object = "the annotations") -> None:
    """Refuse annotations that an evaluator would misread.

    Args:
        document: The parsed file.
        kind: What will be compared; only its fields are looked at.
        source: What the error calls the file.

    Raises:
        DataError: with the first faults.
    """
    if not isinstance(document, dict):
        raise DataError(f"{source} is not a JSON object with images, annotations and categories")
    faults = list(_missing(document)) or list(_inconsistent(document, kind))
    refuse(source, faults, "COCO's layout is needed; unpack the original file again")


def with_own_ids(document: Record) -> Record:
    """Return annotations of which no two have the same id: evaluators find them by it.

    Exports may begin anew in each image.
    """
    records = document["annotations"]
    if len({record["id"] for record in records}) == len(records):
        return document
    numbered = [{**record, "id": number} for number, record in enumerate(records, 1)]
    return {**document, "annotations": numbered}


def _missing(document: Record) -> Iterator[str]:
    for name, fields in _LISTS.items():
        records = document.get(name)
        if not isinstance(records, list):
            yield f"has no list {name!r}"
            continue
        for position, record in enumerate(records):
            gone = [
                field for field in fields if not isinstance(record, dict) or field not in record
            ]
            if gone:
                yield f"{name}[{position}] has no {', '.join(gone)}"


def _inconsistent(document: Record, kind: Kind) -> Iterator[str]:
    images = {image["id"] for image in document["images"]}
    categories = {category["id"] for category in document["categories"]}
    needed = _NEEDED[kind]
    if not images:
        yield "has no images: the split is empty"
    for name in ("images", "categories"):
        for identity, count in Counter(entry["id"] for entry in document[name]).items():
            if count > 1:
                yield f"{count} {name} share the id {identity}"
    for annotation in document["annotations"]:
        name = f"annotation {annotation['id']}"
        if annotation["image_id"] not in images:
            yield f"{name} is on image {annotation['image_id']}, which is not listed"
        if annotation["category_id"] not in categories:
            yield f"{name} is of category {annotation['category_id']}, which is not listed"
        if needed not in annotation:
            yield f"{name} has no {needed}"
        elif kind == "segm" and _degenerate(annotation["segmentation"]):
            yield f"{name} has a polygon of fewer than three points"


def _degenerate(segmentation: Any) -> bool:
    return isinstance(segmentation, list) and (
        not segmentation or any(len(polygon) < _COORDINATES for polygon in segmentation)
    )
