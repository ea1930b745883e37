"""The records of an annotation file of COCO's form: what each must be, field by field.

Whole numbers that an export wrote as texts or floats are taken for what they are, and `null` for a
field that is not there. All else is refused with the field, the value and the way out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.datasets.fields import (
    Record,
    Refusal,
    is_number,
    is_whole,
    labelled_record,
    named_record,
    number,
    shown,
    whole,
)
from components.evaluation.body import COARSE_PARTS, FINE_PARTS, SIDE
from components.vision import rle

SURFACE_NUMBERS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
SURFACE_FIELDS = (*SURFACE_NUMBERS, "dp_masks")
SURFACE_RANGES = {"dp_x": SIDE, "dp_y": SIDE, "dp_U": 1, "dp_V": 1}
"""From 0 to what, of a point on a surface."""
SURFACE_SLACK = 0.01  # of that, which fits to a mesh may leave it by
LEAST_COORDINATES = 6  # of a polygon: three corners


def image_record(record: object) -> Record:
    """Return an image's record with `id`, `height` and `width` as numbers.

    Raises:
        Refusal: naming the field.
    """
    if type(record) is dict and all(
        type(record.get(field)) is int and 0 < record[field] < 2**31
        for field in ("id", "height", "width")
    ):
        return record  # as nearly all are
    image = labelled_record(record, ())
    for side in ("height", "width"):
        image[side] = whole(image, side, 1)
    return image


def category_record(record: object) -> Record:
    """Return a category's record with `id` as a number, and `name`, `keypoints` and `skeleton`.

    Raises:
        Refusal: naming the field.
    """
    category = named_record(record)
    names = category.get("keypoints") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refusal(f"has keypoints {shown(names)} instead of a list of names")
    if len(set(names)) != len(names):
        raise Refusal(f"has keypoints of which two have one name: {shown(names)}")
    category["keypoints"] = names
    skeleton = category.get("skeleton") or []
    pairs = isinstance(skeleton, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(is_whole(point) and 1 <= point <= len(names) for point in pair)
        for pair in skeleton
    )
    if not pairs:
        raise Refusal(
            f"has skeleton {shown(skeleton)} instead of pairs of keypoints from 1 to {len(names)}"
        )
    category["skeleton"] = [[int(point) for point in pair] for pair in skeleton]
    return category


def annotation_record(record: Mapping[str, Any]) -> Record:
    """Return an annotation with numbers where they must be, and without fields that are null.

    What needs its image or its category is for whoever knows these: whether run lengths have its
    size, or how many keypoints there must be.

    Raises:
        Refusal: naming the field.
    """
    annotation = {field: value for field, value in record.items() if value is not None}
    for field in ("id", "image_id", "category_id"):
        annotation[field] = whole(annotation, field)
    annotation["bbox"] = _box(annotation)
    annotation["area"] = number(annotation, "area", annotation["bbox"][2] * annotation["bbox"][3])
    if annotation["area"] < 0:
        raise Refusal(f"has area {shown(annotation['area'])}, below zero")
    annotation["iscrowd"] = whole(annotation, "iscrowd", default=0)
    if annotation["iscrowd"] not in (0, 1):
        raise Refusal(f"has iscrowd {shown(record['iscrowd'])} instead of 0 or 1")
    if "segmentation" in annotation:
        annotation["segmentation"] = _segmentation(annotation["segmentation"])
    if "keypoints" in annotation:
        annotation["keypoints"] = _keypoints(annotation["keypoints"])
    if any(field in annotation for field in SURFACE_FIELDS):
        _check_surface(annotation)
    return annotation


def polygons(segmentation: Sequence[Any]) -> list[Any]:
    """Return the polygons that have an area to fill, as detectron2 chooses them."""
    return [
        polygon
        for polygon in segmentation
        if len(polygon) >= LEAST_COORDINATES and len(polygon) % 2 == 0
    ]


def _box(record: Mapping[str, Any]) -> list[float]:
    box = record.get("bbox")
    if box is None:
        raise Refusal("has no bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        raise Refusal(f"has bbox {shown(box)} instead of four numbers: left, top, width and height")
    if not (box[2] > 0 and box[3] > 0):
        raise Refusal(f"has a box of {box[2]}×{box[3]} pixels, without area", shape=True)
    return [float(number) for number in box]


def _segmentation(value: object) -> object:
    if isinstance(value, dict):
        return _run_lengths(value)
    if not isinstance(value, list):
        raise Refusal(f"has segmentation {shown(value)} instead of polygons or run lengths")
    if value and all(map(is_number, value)):
        raise Refusal(
            f"has segmentation {shown(value)}: one flat list instead of a list of polygons; "
            "put it into brackets: [[x, y, …]]"
        )
    for polygon in value:
        if not isinstance(polygon, list) or not all(map(is_number, polygon)):
            raise Refusal(
                f"has polygon {shown(polygon)} instead of a flat list of numbers x, y, x, y, …"
            )
    whole = polygons(value)
    if value and not whole:
        corners = len(value[0]) / 2
        raise Refusal(f"has a polygon of {corners:g} points instead of 3 or more", shape=True)
    return whole


def _run_lengths(value: Mapping[str, Any]) -> Record:
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(is_whole, size))):
        raise Refusal(f"has run lengths whose size is {shown(size)} instead of height and width")
    try:
        run_lengths(counts)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(
            f"has run lengths whose counts are {shown(counts)} instead of whole numbers of pixels "
            "or their compressed text"
        ) from None
    return {"size": [int(side) for side in size], "counts": counts}


def run_lengths(counts: object) -> rle.Runs:
    """Return run lengths from a list of numbers or from compressed text.

    Raises:
        TypeError: if they are neither.
        ValueError: if the text cannot be read.
        OverflowError: if a length is below zero or over 32 bits.
    """
    if isinstance(counts, str):
        return rle.uncompress(counts)
    if not isinstance(counts, list):
        raise TypeError("no run lengths")
    return rle.runs_of(counts)


def _keypoints(value: object) -> list[float]:
    if not (isinstance(value, list) and len(value) % 3 == 0 and all(map(is_number, value))):
        count = f"{len(value)} values " if isinstance(value, list) else ""
        raise Refusal(
            f"has keypoints of {count}{shown(value)} instead of x, y and visibility of each in turn"
        )
    if not {*value[2::3]} <= {0, 1, 2}:
        raise Refusal("has a keypoint whose visibility is not 0, 1 or 2")
    return [float(number) for number in value]


def _check_surface(annotation: Record) -> None:
    missing = [field for field in SURFACE_FIELDS if field not in annotation]
    if missing:
        raise Refusal(f"has DensePose without {', '.join(missing)}")
    for field in SURFACE_NUMBERS:
        if not (isinstance(annotation[field], list) and all(map(is_number, annotation[field]))):
            raise Refusal(f"has {field} {shown(annotation[field])} instead of a list of numbers")
    if len({len(annotation[field]) for field in SURFACE_NUMBERS}) != 1:
        raise Refusal("has DensePose points whose coordinates are not equally many")
    for field, most in SURFACE_RANGES.items():
        slack = SURFACE_SLACK * most
        wrong = [value for value in annotation[field] if not -slack <= value <= most + slack]
        if wrong:
            raise Refusal(f"has {field} {shown(wrong[0])}, which is not 0 to {most}")
    if not all(is_whole(part) and 1 <= part <= FINE_PARTS for part in annotation["dp_I"]):
        raise Refusal(f"has a DensePose part that is not 1 to {FINE_PARTS}")
    annotation["dp_masks"] = _surface_masks(annotation["dp_masks"])


def _surface_masks(masks: object) -> list[Record | list[Any]]:
    if not isinstance(masks, list) or len(masks) > COARSE_PARTS:
        told = f"{len(masks)} of them" if isinstance(masks, list) else shown(masks)
        raise Refusal(f"has dp_masks: {told} instead of a list of {COARSE_PARTS}")
    whole: list[Record | list[Any]] = []
    for mask in masks:
        if mask in ([], None):
            whole.append([])
            continue
        try:
            runs = run_lengths(mask["counts"])
        except (TypeError, KeyError, ValueError, OverflowError):
            runs = None
        if runs is None or runs.sum(dtype="int64") != SIDE**2:
            raise Refusal(
                f"has in dp_masks {shown(mask)} instead of run lengths of {SIDE}×{SIDE} pixels"
            )
        whole.append({"size": [SIDE] * 2, "counts": rle.compress(runs)})
    return whole
