"""COCO's records of images and annotations, which LVIS and DensePose share."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.rendering.pictures import KEYPOINTS, SKELETON, Picture, Thing
from components.vision import rle

Record = dict[str, Any]

LICENSE = {"id": 1, "name": "CC BY 4.0", "url": ""}


def image_record(picture: Picture, identity: int, name: str, folder: str, file: str) -> Record:
    """Make the record of an image that annotations call `name`, and that is FOLDER/FILE."""
    height, width = picture.pixels.shape[:2]
    return {
        "id": identity,
        "file_name": name,
        "coco_url": f"{folder}/{file}",
        "width": width,
        "height": height,
        "license": 1,
        "date_captured": "1998-07-01 00:00:00",
    }


def annotation(thing: Thing, identity: int, image: int, category: int) -> Record:
    """Make the record of an instance: polygons, or the run lengths of a crowd."""
    left, top, right, bottom = thing.box
    height, width = thing.mask.shape
    segmentation: Any = [polygon.ravel().tolist() for polygon in thing.polygons]
    if thing.crowd:
        segmentation = {"size": [height, width], "counts": rle.encode(thing.mask).tolist()}
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "iscrowd": int(thing.crowd),
        "area": thing.area,
        "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
        "segmentation": segmentation,
    }


def keypoint_fields(thing: Thing) -> Record:
    """Make the further fields of an instance's keypoints; a crowd has none that are labelled."""
    return {
        "keypoints": thing.keypoints.ravel().tolist(),
        "num_keypoints": int(np.count_nonzero(thing.keypoints[:, 2])),
    }


def person_category() -> Record:
    """Make the one category of keypoints and DensePose: a digit, whatever it shows."""
    return {
        "id": 1,
        "name": "digit",
        "supercategory": "digit",
        "keypoints": list(KEYPOINTS),
        "skeleton": SKELETON,
    }


def write_document(
    path: Path,
    description: str,
    images: Iterable[Record],
    annotations: Iterable[Record],
    categories: Iterable[Mapping[str, Any]],
) -> None:
    """Write an annotation file."""
    document = {
        "info": {"description": description, "version": "1.0", "year": 2017},
        "licenses": [LICENSE],
        "images": list(images),
        "annotations": list(annotations),
        "categories": list(categories),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":")), "utf-8")
