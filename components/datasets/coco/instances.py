"""COCO 2017's instances (Sec. 4.2, A.8)."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from components.datasets.coco.file import AnnotationFile
from components.datasets.coco.reader import CocoReader, scan_in_folder
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet

if TYPE_CHECKING:
    from components.datasets.results import Results


class CocoInstances(CocoReader):
    """annotations/instances_{train,val}2017.json, with images in train2017 and val2017."""

    title: ClassVar = "COCO 2017"
    published: ClassVar = {
        **{"categories": 80, "train2017 images": 118_287, "val2017 images": 5_000},
        **{"train2017 annotations": 860_001, "val2017 annotations": 36_781},
    }

    def scan_file(self, root: Path, part: str, findings: Findings) -> AnnotationFile:
        """Report what is wrong with a part's annotations."""
        return scan_in_folder(root, f"instances_{part}", part, findings)

    def note_file(self, file: AnnotationFile, findings: Findings) -> None:
        """Note instances without masks."""
        if unmasked := file.unmasked():
            findings.notes.append(
                f"{file.name}: {unmasked:,} of {file.annotations:,} annotations have no mask; "
                "boxes can be learned from them, and set model.masks to false for that"
            )

    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what measures boxes, and masks where the model finds them."""
        from components.datasets.coco.results import CocoResults

        path = root / "annotations" / "instances_val2017.json"
        return CocoResults(images, path, ("bbox", "segm") if masks else ("bbox",))
