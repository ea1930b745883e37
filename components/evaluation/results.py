"""Predictions in COCO's result format: a list of records, masks run-length encoded."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco import mask as rle

from components.core.errors import DataError
from components.evaluation.annotations import Kind, Record
from components.evaluation.figures import refuse

_WAY_OUT = "predictions must be of the same split and classes as the annotations"
_KEYPOINTS = 17  # a person's, where a category does not say


def encode_mask(mask: npt.NDArray[Any]) -> Record:
    """Run-length encode a mask, (H, W), as COCO's result format has it (text, fit for JSON)."""
    encoded = rle.encode(np.asfortranarray(mask != 0).astype(np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def write_results(path: Path, results: Sequence[Record], annotations: Record, kind: Kind) -> None:
    """Write predictions as one file that an evaluation server takes.

    Args:
        path: The file; its folder must exist.
        results: A record each: `image_id`, `category_id`, `score`, and `bbox` [x, y, width,
            height], `segmentation` (RLE) or `keypoints` (x, y, score of each), in pixels of the
            original image.
        annotations: Those of the images, in COCO's layout; a server's have no annotations.
        kind: What the records must have.

    Raises:
        DataError: if a record is not fit to be evaluated; nothing is written.
    """
    check_results(results, annotations, kind, path)
    path.write_text(json.dumps(results) + "\n", "utf-8")


def read_results(path: Path, annotations: Record, kind: Kind) -> list[Record]:
    """Read predictions that `write_results` or another code base wrote.

    Raises:
        DataError: if they cannot be read, or do not fit the annotations.
    """
    try:
        results = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the predictions {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    check_results(results, annotations, kind, path)
    return list(results)


def check_results(
    results: Any, annotations: Record, kind: Kind, source: object = "the predictions"
) -> None:
    """Refuse predictions that cannot be evaluated as they are.

    Args:
        results: What should be a list of records.
        annotations: The annotations they answer, in COCO's layout.
        kind: What the records must have.
        source: What the error calls the file.

    Raises:
        DataError: with the first faults.
    """
    if not isinstance(results, list | tuple):
        raise DataError(f"{source} is not a list of predictions: COCO's result format is one")
    refuse(source, list(_faults(results, annotations, kind)), _WAY_OUT)


def _faults(results: Sequence[Any], annotations: Record, kind: Kind) -> Iterator[str]:
    sizes = {image["id"]: [image["height"], image["width"]] for image in annotations["images"]}
    lengths = {
        category["id"]: 3 * len(category.get("keypoints", range(_KEYPOINTS)))
        for category in annotations["categories"]
    }
    for position, result in enumerate(results):
        try:
            image, category, score = result["image_id"], result["category_id"], result["score"]
            if image not in sizes:
                fault = f"image id {image!r} is unknown"
            elif category not in lengths:
                fault = f"category id {category!r} is unknown"
            elif not math.isfinite(score):
                fault = f"score {score} is not a finite number"
            elif kind == "bbox":
                fault = _box_fault(result["bbox"])
            elif kind == "segm":
                fault = _mask_fault(result["segmentation"], sizes[image])
            else:
                fault = _keypoints_fault(result["keypoints"], lengths[category])
        except KeyError as error:
            fault = f"there is no {error}"
        except (TypeError, ValueError) as error:
            fault = f"it is malformed ({error})"
        if fault:
            yield f"prediction {position}: {fault}"


def _box_fault(box: Sequence[float]) -> str:
    x, y, width, height = box
    if not (width > 0 and height > 0):
        return f"box {list(box)} has no area (a box is x, y, width, height)"
    return "" if math.isfinite(x + y + width + height) else f"box {list(box)} is not finite"


def _mask_fault(mask: Any, size: Sequence[int]) -> str:
    if not isinstance(mask, dict) or not isinstance(mask["counts"], str | bytes):
        return "the mask is not a compressed RLE, which COCO's result format needs"
    if list(mask["size"]) != size:
        return f"the mask is {list(mask['size'])}, the image {size} (height, width)"
    return ""


def _keypoints_fault(keypoints: Sequence[float], length: int) -> str:
    if len(keypoints) != length:
        return f"{len(keypoints)} numbers for keypoints instead of {length} (x, y, score of each)"
    return "" if math.isfinite(sum(keypoints)) else "a keypoint is not finite"
