"""Readers of COCO: instances and keypoints of 2017, DensePose of 2014 (A.2, A.3, A.8).

A `scan` reports faults and returns what can be used of an annotation file; a `read` refuses a file
that has any.
"""

from pathlib import Path

from components.core.errors import DataError
from components.vision.datasets.coco_json import AnnotationFile, FileOf
from components.vision.datasets.coco_records import file_name
from components.vision.datasets.findings import Findings, strictly
from components.vision.datasets.instances import InstanceSet


def scan_coco(root: Path, split: str, findings: Findings) -> AnnotationFile:
    """Scan ROOT/annotations/instances_SPLIT.json."""
    return AnnotationFile(root, f"annotations/instances_{split}.json", findings, _in_folder(split))


def scan_keypoints(root: Path, split: str, findings: Findings) -> AnnotationFile:
    """Scan ROOT/annotations/person_keypoints_SPLIT.json."""
    name = f"annotations/person_keypoints_{split}.json"
    return AnnotationFile(root, name, findings, _in_folder(split), people=True)


def scan_densepose(root: Path, split: str, findings: Findings) -> AnnotationFile:
    """Scan ROOT/annotations/densepose_SPLIT.json."""
    folder = "train2014" if split.startswith("train") else "val2014"
    return AnnotationFile(root, f"annotations/densepose_{split}.json", findings, _in_folder(folder))


def read_coco(root: Path, split: str) -> InstanceSet:
    """Read ROOT/annotations/instances_SPLIT.json; images are in the folder ROOT/SPLIT.

    Args:
        root: The data set's folder.
        split: Such as `train2017`.

    Raises:
        DataError: naming what is wrong with the annotations; images are not opened.
    """
    return strictly(lambda found: scan_coco(root, split, found), root, "coco").instance_set()


def read_keypoints(root: Path, split: str) -> InstanceSet:
    """Read ROOT/annotations/person_keypoints_SPLIT.json (A.2); images are in ROOT/SPLIT.

    Raises:
        DataError: as `read_coco`, and if keypoints are not as many as named.
    """
    file = strictly(lambda found: scan_keypoints(root, split, found), root, "keypoints")
    return file.instance_set(keypoints=file.keypoints())


def read_densepose(root: Path, split: str) -> InstanceSet:
    """Read ROOT/annotations/densepose_SPLIT.json (A.3).

    Args:
        root: The data set's folder.
        split: `train2014`, `valminusminival2014` or `minival2014`; the images of the
            last two are in the folder ROOT/val2014.

    Raises:
        DataError: as `read_coco`.
    """
    file = strictly(lambda found: scan_densepose(root, split, found), root, "densepose")
    keypoints = file.keypoints() if file.categories().keypoints else None
    return file.instance_set(keypoints=keypoints, surface=file.surface())


def _in_folder(folder: str) -> FileOf:
    return lambda image: f"{folder}/{file_name(image, 'file_name')}"


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
