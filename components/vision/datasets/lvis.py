"""Reader of LVIS v0.5, which annotates COCO's images of 2017 with 1,230 classes (A.4)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from components.core.errors import DataError
from components.vision.datasets.coco_json import AnnotationFile
from components.vision.datasets.instances import InstanceSet
from components.vision.datasets.layout import lvis_file, lvis_image


def read_lvis(root: Path, split: str) -> InstanceSet:
    """Read lvis_v0.5_SPLIT.json in ROOT, ROOT/annotations or ROOT/lvis.

    Images are in ROOT/train2017 and ROOT/val2017.

    Args:
        root: COCO's folder.
        split: `train` or `val`.

    Raises:
        DataError: naming what is wrong with the annotations; images are not opened.
    """
    path = lvis_file(root, split)
    if path is None:
        raise DataError(
            f"{root} has no lvis_v0.5_{split}.json, neither itself nor in annotations/ or lvis/"
        )
    file = AnnotationFile(path, "lvis")
    images = file.instance_set(root, [lvis_image(image, split) for image in file.images])
    if not images.categories.frequencies:
        raise DataError(f"{path}: the categories have no frequency: is it COCO's, not LVIS's?")
    return replace(
        images,
        absent=_classes(file, "neg_category_ids"),
        not_exhaustive=_classes(file, "not_exhaustive_category_ids"),
    )


def _classes(file: AnnotationFile, field: str) -> list[Any]:
    """Return the class indices that each image's record lists under a field."""
    try:
        return [
            np.array([file.labels[one] for one in image.get(field, ())], np.int32)
            for image in file.images
        ]
    except KeyError as error:
        raise DataError(
            f"{file.path}: {field} names category {error}, which the file does not have"
        ) from None
