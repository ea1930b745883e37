"""COCO 2014's DensePose of persons (A.3)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from components.datasets.coco.file import AnnotationFile
from components.datasets.coco.geometry import (
    EVALUATION_GEOMETRY,
    GEOMETRY_FOLDERS,
    TRAINING_GEOMETRY,
    geometry_folder,
    read_mirroring,
)
from components.datasets.coco.reader import CocoReader, scan_in_folder
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet, Mirroring
from components.vision.formats import is_image

if TYPE_CHECKING:
    from components.datasets.results import Results

TEST = "minival2014"


class DensePose(CocoReader):
    """annotations/densepose_*2014.json, with images in train2014 and val2014."""

    title: ClassVar = "COCO 2014"
    published: ClassVar = {"train2014 image files": 82_783, "val2014 image files": 40_504}
    parts: ClassVar = {"train": ("train2014", "valminusminival2014"), "val": (TEST,)}

    def scan_file(self, root: Path, part: str, findings: Findings) -> AnnotationFile:
        """Report what is wrong with a part's annotations."""
        folder = "train2014" if part.startswith("train") else "val2014"
        return scan_in_folder(root, f"densepose_{part}", folder, findings)

    def instance_set(self, file: AnnotationFile) -> InstanceSet:
        """Return what a file without faults holds, surfaces and keypoints included."""
        keypoints = file.keypoints() if file.categories().keypoints else None
        return file.instance_set(keypoints=keypoints, surface=file.surface())

    def check(self, root: Path, findings: Findings, *, decode: bool) -> None:
        """Find every fault, missing geometry too."""
        for folder in ("train2014", "val2014"):
            findings.counts[f"{folder} image files"] = _count_images(root / folder)
        super().check(root, findings, decode=decode)
        for files, use in ((TRAINING_GEOMETRY, "training"), (EVALUATION_GEOMETRY, "measuring")):
            for name in files:
                if not any((root / folder / name).is_file() for folder in GEOMETRY_FOLDERS):
                    findings.fault(f"densepose/{name}", f"is missing: {use} needs it")

    def instructive(self, images: InstanceSet) -> npt.NDArray[np.bool_]:
        """Say which instances are no crowd and have points on the surface."""
        surface = images.surface
        assert surface is not None
        count = len(images.labels)
        return ~images.crowd & np.fromiter(
            (surface(instance) is not None for instance in range(count)), np.bool_, count
        )

    def mirroring(self, root: Path) -> Mirroring:
        """Read where points of a body's surface go in a mirror."""
        works = (
            "DensePose trains without mirrored images and boxes are measured: set "
            "without_geometry to true"
        )
        return read_mirroring(geometry_folder(root, TRAINING_GEOMETRY, works))

    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what measures boxes, and surfaces where the geometry is to be used."""
        from components.datasets.coco.results import DensePoseResults

        works = (
            "boxes can be measured: set without_geometry to true, and evaluate the stored "
            "predictions when the files are there"
        )
        folder = geometry_folder(root, EVALUATION_GEOMETRY, works) if geometry else None
        return DensePoseResults(images, root / "annotations" / f"densepose_{TEST}.json", folder)


def _count_images(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(is_image(entry.name) for entry in entries)
    except OSError:
        return 0
