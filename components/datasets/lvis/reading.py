"""Reader of LVIS v0.5, which annotates COCO's images of 2017 with 1,230 classes (A.4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from components.datasets.coco.file import AnnotationFile
from components.datasets.coco.reader import CocoReader
from components.datasets.fields import Record, Refusal, file_name, shown
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet

if TYPE_CHECKING:
    from components.datasets.results import Results

V1_CLASSES = 1_203
_FOLDERS = (".", "annotations", "lvis")  # below COCO's, where the annotations may lie
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
_MOST = 2**31  # of anything that is counted
_FREQUENCIES = {"r": 10, "c": 100, "f": _MOST}  # most training images of such a class


class LvisFile(AnnotationFile):
    """LVIS's annotations: COCO's form, and what is known not to be in an image.

    Attributes:
        absent: For each image classes that are certainly not in it.
        not_exhaustive: For each image classes of which not every instance is annotated.
    """

    def __init__(self, root: Path, name: str, findings: Findings, split: str) -> None:
        """Read the file, and report all that is wrong with it.

        Args:
            root: COCO's folder.
            name: Of the file, relative to it.
            findings: Where faults go.
            split: `train` or `val`: images that name no folder are of this split.
        """
        super().__init__(root, name, findings, lambda image: _image_file(image, split))
        before = len(findings.faults)
        categories = self.category_records()
        if len(categories) == V1_CLASSES:
            findings.fault(
                name,
                f"has the {V1_CLASSES:,} classes of LVIS v1: A.4 is of v0.5, whose results are not "
                "comparable; fetch lvis_v0.5_train.json and lvis_v0.5_val.json",
            )
        for category in categories:
            if message := _group_fault(category):
                self.fault("categories", message, category)
            elif category["frequency"] != (right := _frequency(category["image_count"])):
                findings.notes.append(
                    f"{name} [{category['id']}]: the category is {category['frequency']!r} with "
                    f"{category['image_count']} training images, which would make it {right!r}"
                )
        labels = {category["id"]: label for label, category in enumerate(categories)}
        self.absent, self.not_exhaustive = (
            [self._classes(image, field, labels) for image in self.images] for field in _LISTS
        )
        if self.sound:
            self._note_denied(categories)
        self.sound = self.sound and len(findings.faults) == before

    def _classes(self, image: Record, field: str, labels: dict[int, int]) -> npt.NDArray[np.int32]:
        """Return the class indices that an image's record lists under a field."""
        ids = image.get(field)
        if not isinstance(ids, list):
            told = f"{field} {shown(ids)} instead of a list" if field in image else f"no {field}"
            self.fault("images", f"the image has {told}", image)
            return np.zeros(0, np.int32)
        known = []
        for identity in ids:
            if isinstance(identity, (int, float)) and identity in labels:
                known.append(labels[int(identity)])
            else:
                message = f"{field} names category {shown(identity)}, which does not exist"
                self.fault("images", message, image)
        return np.array(known, np.int32)

    def _note_denied(self, categories: Sequence[Record]) -> None:
        """Note images that show what their record says is not in them."""
        classes = len(categories)
        denied = np.concatenate(
            [np.zeros(0, np.int64)]
            + [
                place * classes + labels.astype(np.int64)
                for place, labels in enumerate(self.absent)
            ]
        )
        for pair in np.intersect1d(denied, self.classes_shown()).tolist():
            place, label = divmod(pair, classes)
            self.findings.notes.append(
                f"{self.name} [{self.images[place]['id']}]: the image has category "
                f"{categories[label]['id']}, which neg_category_ids says that it has not"
            )


class Lvis(CocoReader):
    """lvis_v0.5_{train,val}.json in ROOT, ROOT/annotations or ROOT/lvis.

    Images are in ROOT/train2017 and ROOT/val2017.
    """

    title: ClassVar = "LVIS v0.5"
    published: ClassVar = {
        **{"categories": 1_230, "train images": 57_263, "val images": 5_000},
        **{"train annotations": 693_958, "val annotations": 50_763},
    }
    parts: ClassVar = {"train": ("train",), "val": ("val",)}

    def scan_file(self, root: Path, part: str, findings: Findings) -> LvisFile | None:
        """Report what is wrong with a split's annotations; None if there are none."""
        path = find_file(root, part)
        if path is not None:
            return LvisFile(root, str(path.relative_to(root)), findings, part)
        newer = find_file(root, part, "v1")
        told = f"is missing, neither in {root} itself nor in annotations/ or lvis/"
        if newer is not None:
            told += f"; {newer.name} is LVIS v1, A.4 is of v0.5"
        findings.fault(f"lvis_v0.5_{part}.json", told)
        return None

    def instance_set(self, file: AnnotationFile) -> InstanceSet:
        """Return what a file without faults holds, and what is known not to be in an image."""
        assert isinstance(file, LvisFile)
        return file.instance_set(absent=file.absent, not_exhaustive=file.not_exhaustive)

    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what measures boxes and masks by LVIS's rules."""
        from components.datasets.coco.results import CocoResults

        path = find_file(root, "val")
        assert path is not None, "its images were read"
        return CocoResults(images, path, ("bbox", "segm"), federated=True)


def find_file(root: Path, split: str, version: str = "v0.5") -> Path | None:
    """Find the annotations of a split, `train` or `val`, below COCO's folder."""
    paths = (root / folder / f"lvis_{version}_{split}.json" for folder in _FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def _image_file(image: Record, split: str) -> str:
    """Return an image's file: COCO's of 2017, though v0.5 calls some by their names of 2014."""
    if image.get("coco_url") is not None:
        parts = str(image["coco_url"]).split("/")[-2:]
        if len(parts) < 2 or not all(parts):
            raise Refusal(f"has coco_url {shown(image['coco_url'])} without a folder and a file")
        return file_name({"coco_url": "/".join(parts)}, "coco_url")
    return f"{split}2017/{file_name(image, 'file_name').rpartition('_')[2]}"


def _group_fault(category: dict[str, Any]) -> str:
    """Say what is wrong with a class's group by its number of training images, if anything is."""
    count, frequency = category.get("image_count"), category.get("frequency")
    known = isinstance(frequency, str) and frequency in _FREQUENCIES
    if not known or not isinstance(count, int) or isinstance(count, bool):
        return "the category has no image_count or frequency: is it COCO's file, not LVIS's?"
    if not 0 <= count < _MOST:
        return f"the category has image_count {count}"
    return ""


def _frequency(count: int) -> str:
    """Return a class's group by its number of training images."""
    return next(letter for letter, most in _FREQUENCIES.items() if count <= most)
