"""Pascal VOC 2012: segmentation, with the augmented labels (A.5)."""

from pathlib import Path
from typing import ClassVar

from components.datasets.findings import Findings
from components.datasets.interface import SegmentationReader
from components.datasets.semantic import SemanticSet
from components.datasets.voc.lists import classes_of, scan_list
from components.vision.image_sets import Names

AUGMENTED = ("SegmentationAug/train_aug", "Segmentation/train_aug", "Segmentation/trainaug")
"""Where below ImageSets the list of A.5 may lie; Pascal VOC itself does not have it."""


class VocSegmentation(SegmentationReader):
    """VOC2012's `train`, `val`, `trainval` and, for A.5, `train_aug`.

    The augmented labels are in SegmentationClassAug, the others in SegmentationClass.
    """

    title: ClassVar = "Pascal VOC's segmentation"
    published: ClassVar = {"train images": 1_464, "val images": 1_449, "train_aug images": 10_582}
    training: ClassVar = "train_aug"
    further: ClassVar = ("train",)

    def scan(self, root: Path, split: str, findings: Findings) -> SemanticSet | None:
        """Report what is wrong with a list, and return what it names."""
        folder = root / "VOC2012"
        path: Path | None = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        if split == "train_aug":
            path = _augmented_list(folder)
        if path is None:
            findings.fault(
                f"VOC2012/ImageSets/{AUGMENTED[1]}.txt",
                f"is missing, and so are {' and '.join(f'{name}.txt' for name in AUGMENTED)} there"
                ": the 10,582 images of VOC and SBD together that A.5 trains on",
            )
            return None
        labels = "SegmentationClassAug" if split == "train_aug" else "SegmentationClass"
        names = scan_list(root, str(path.relative_to(root)), findings)
        return SemanticSet(
            root=folder,
            files=Names(f"JPEGImages/{name}.jpg" for name in names),
            label_files=Names(f"{labels}/{name}.png" for name in names),
            classes=("background", *classes_of(folder)),
        )


def _augmented_list(folder: Path) -> Path | None:
    paths = (folder / "ImageSets" / f"{name}.txt" for name in AUGMENTED)
    return next((path for path in paths if path.is_file()), None)
