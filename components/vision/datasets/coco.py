"""Readers of COCO: instances and keypoints of 2017, DensePose of 2014 (A.2, A.3, A.8)."""

from dataclasses import replace
from pathlib import Path

from components.core.errors import DataError
from components.vision.datasets.coco_json import AnnotationFile
from components.vision.datasets.instances import InstanceSet


def read_coco(root: Path, split: str) -> InstanceSet:
    """Read ROOT/annotations/instances_SPLIT.json; images are in the folder ROOT/SPLIT.

    Args:
        root: The data set's folder.
        split: Such as `train2017`.

    Raises:
        DataError: naming what is wrong with the annotations; images are not opened.
    """
    file = AnnotationFile(root / "annotations" / f"instances_{split}.json", "coco")
    return file.instance_set(root, [f"{split}/{image['file_name']}" for image in file.images])


def read_keypoints(root: Path, split: str) -> InstanceSet:
    """Read ROOT/annotations/person_keypoints_SPLIT.json (A.2); images are in ROOT/SPLIT.

    Raises:
        DataError: as `read_coco`, and if keypoints are missing or not as many as named.
    """
    file = AnnotationFile(root / "annotations" / f"person_keypoints_{split}.json", "keypoints")
    images = file.instance_set(root, [f"{split}/{image['file_name']}" for image in file.images])
    return replace(images, keypoints=file.keypoints(images))


def read_densepose(root: Path, split: str) -> InstanceSet:
    """Read ROOT/annotations/densepose_SPLIT.json (A.3).

    Args:
        root: The data set's folder.
        split: `train2014`, `valminusminival2014` or `minival2014`; the images of the
            last two are in the folder ROOT/val2014.

    Raises:
        DataError: as `read_coco`.
    """
    folder = "train2014" if split.startswith("train") else "val2014"
    file = AnnotationFile(root / "annotations" / f"densepose_{split}.json", "densepose")
    images = file.instance_set(root, [f"{folder}/{image['file_name']}" for image in file.images])
    if images.categories.keypoints:
        images = replace(images, keypoints=file.keypoints(images))
    return replace(images, surface=file.surface(images))


def flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Find the keypoints that change places when an image is mirrored, by `left` and `right`.

    Raises:
        DataError: if a keypoint of one side has no partner.
    """
    pairs = []
    for index, name in enumerate(names):
        if "left" in name:
            partner = name.replace("left", "right")
            if partner not in names:
                raise DataError(f"keypoint {name!r} has no partner {partner!r}")
            pairs.append((index, names.index(partner)))
    return tuple(pairs)
