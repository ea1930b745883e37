"""Checks COCO's layouts: instances and keypoints of 2017, DensePose of 2014, and LVIS v0.5.

The readers say what is wrong with the annotations; here it is whether they agree with the files.
"""

import os
from collections.abc import Callable
from pathlib import Path

from components.vision.check.files import check_files
from components.vision.datasets.coco import scan_coco, scan_densepose, scan_keypoints
from components.vision.datasets.coco_json import AnnotationFile
from components.vision.datasets.findings import Findings
from components.vision.datasets.layout import (
    EVALUATION_GEOMETRY,
    GEOMETRY_FOLDERS,
    TRAINING_GEOMETRY,
)
from components.vision.datasets.lvis import scan_lvis
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

Scan = Callable[[Path, str, Findings], AnnotationFile | None]


def check_coco(root: Path, findings: Findings, decode: bool) -> None:
    """Check instances_{train,val}2017.json and their images."""
    for file in _check(root, ("train2017", "val2017"), scan_coco, findings, decode):
        if unmasked := file.sound and file.unmasked():
            findings.notes.append(
                f"{file.name}: {unmasked:,} of {file.annotations:,} annotations have no mask; "
                "boxes can be learned from them, and set model.masks to false for that"
            )
    findings.compare(INSTANCES, "COCO 2017")


def check_keypoints(root: Path, findings: Findings, decode: bool) -> None:
    """Check person_keypoints_{train,val}2017.json and their images."""
    _check(root, ("train2017", "val2017"), scan_keypoints, findings, decode)
    findings.compare(KEYPOINTS, "COCO 2017")


def check_densepose(root: Path, findings: Findings, decode: bool) -> None:
    """Check densepose_*2014.json, their images, and whether the geometry is there."""
    parts = ("train2014", "valminusminival2014", "minival2014")
    _check(root, parts, scan_densepose, findings, decode)
    for folder in ("train2014", "val2014"):
        findings.counts[f"{folder} image files"] = _count_images(root / folder)
    for files, use in ((TRAINING_GEOMETRY, "training"), (EVALUATION_GEOMETRY, "measuring")):
        for name in files:
            if not any((root / folder / name).is_file() for folder in GEOMETRY_FOLDERS):
                findings.fault(f"densepose/{name}", f"is missing: {use} needs it")
    findings.compare(DENSEPOSE, "COCO 2014")


def check_lvis(root: Path, findings: Findings, decode: bool) -> None:
    """Check lvis_v0.5_{train,val}.json and the images of 2017 that they name."""
    _check(root, ("train", "val"), scan_lvis, findings, decode)
    findings.compare(LVIS, "LVIS v0.5")


def _check(
    root: Path, splits: tuple[str, ...], scan: Scan, findings: Findings, decode: bool
) -> list[AnnotationFile]:
    """Read each split's annotations, then look at the images that they name."""
    found = []
    for split in splits:
        file = scan(root, split, findings)
        if file is None:
            continue
        found.append(file)
        categories = len(file.category_records())
        findings.counts["categories"] = max(findings.counts.get("categories", 0), categories)
        findings.counts[f"{split} images"] = len(file.images)
        findings.counts[f"{split} annotations"] = file.annotations
        _note_gaps(file, findings)
        named = [(one["file"], one["id"], (one["width"], one["height"])) for one in file.images]
        check_files(root, named, findings, decode=decode)
    _check_agreement(found, findings)
    return found


def _check_agreement(files: list[AnnotationFile], findings: Findings) -> None:
    """Report a part that has other classes than the first: a detector has one list of them."""
    sound = [file for file in files if file.sound]
    for other in sound[1:]:
        ours, theirs = sound[0].categories(), other.categories()
        if (ours.names, ours.keypoints) == (theirs.names, theirs.keypoints):
            continue
        lone = sorted({*ours.names} ^ {*theirs.names})
        told = f": {', '.join(lone[:5])}" if lone else ", in another order"
        findings.fault(other.name, f"has other classes or keypoints than {sound[0].name}{told}")


def _note_gaps(file: AnnotationFile, findings: Findings) -> None:
    ids = [one["id"] for one in file.category_records()]
    if ids and ids != list(range(1, len(ids) + 1)):
        findings.notes.append(
            f"{file.name}: {len(ids)} category ids from {ids[0]} to {ids[-1]}, not counted from "
            "1; that is fine"
        )


def _count_images(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(is_image(entry.name) for entry in entries)
    except OSError:
        return 0
