"""COCO 2017's keypoints of persons (A.2)."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from components.datasets.coco.file import AnnotationFile
from components.datasets.coco.reader import CocoReader, scan_in_folder
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet

if TYPE_CHECKING:
    from components.datasets.results import Results


class CocoKeypoints(CocoReader):
    """annotations/person_keypoints_{train,val}2017.json, with images in train2017 and val2017."""

    title: ClassVar = "COCO 2017"
    published: ClassVar = {
        **{"categories": 1, "train2017 images": 118_287, "val2017 images": 5_000},
        **{"train2017 annotations": 262_465, "val2017 annotations": 11_004},
    }

    def scan_file(self, root: Path, part: str, findings: Findings) -> AnnotationFile:
        """Report what is wrong with a part's annotations, missing names of keypoints too."""
        return scan_in_folder(root, f"person_keypoints_{part}", part, findings, people=True)

    def instance_set(self, file: AnnotationFile) -> InstanceSet:
        """Return what a file without faults holds, keypoints included."""
        return file.instance_set(keypoints=file.keypoints())

    def instructive(self, images: InstanceSet) -> npt.NDArray[np.bool_]:
        """Say which instances are no crowd and have a labelled keypoint."""
        assert images.keypoints is not None
        labelled: npt.NDArray[np.bool_] = (images.keypoints[..., 2] > 0).any(axis=1)  # type: ignore[assignment]
        return ~images.crowd & labelled

    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what measures boxes and keypoints."""
        from components.datasets.coco.results import CocoResults

        path = root / "annotations" / "person_keypoints_val2017.json"
        return CocoResults(images, path, ("bbox", "keypoints"))
