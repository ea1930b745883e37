"""What data sets in COCO's form share: one or more annotation files a split."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import ClassVar

from components.datasets.coco.file import AnnotationFile
from components.datasets.fields import file_name
from components.datasets.files import check_files
from components.datasets.findings import Findings
from components.datasets.instances import InstanceSet, join
from components.datasets.interface import DetectionReader
from components.datasets.parts import Part, compare_parts


class CocoReader(DetectionReader):
    """A data set in COCO's form.

    Attributes:
        parts: Of each split, what its annotation files call them.
    """

    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train2017",),
        "val": ("val2017",),
    }

    @abstractmethod
    def scan_file(self, root: Path, part: str, findings: Findings) -> AnnotationFile | None:
        """Report what is wrong with a part's annotations; None if there are none."""

    def instance_set(self, file: AnnotationFile) -> InstanceSet:
        """Return what a file without faults holds."""
        return file.instance_set()

    def scan(self, root: Path, split: str, findings: Findings) -> InstanceSet | None:
        """Report what is wrong with a split, and return it if nothing is."""
        before = len(findings.faults)
        files = [self.scan_file(root, part, findings) for part in self.parts[split]]
        sound = [file for file in files if file and file.sound]
        if len(sound) > 1:
            compare_parts([self.part_of(split, file) for file in sound], findings)
        if len(findings.faults) > before:
            return None
        return reduce(join, map(self.instance_set, sound))

    def check(self, root: Path, findings: Findings, *, decode: bool) -> None:
        """Find every fault: of the annotations, then of the images that they name."""
        sound: list[Part] = []
        for split in (self.training, self.validation):
            for part in self.parts[split]:
                file = self.scan_file(root, part, findings)
                if file is None:
                    continue
                self._look_at(part, file, findings, decode=decode)
                if file.sound:
                    sound.append(self.part_of(split, file))
        compare_parts(sound, findings)
        findings.compare(self.published, self.title)

    def shown(self, split: str) -> str:
        """Name the annotations of a split."""
        return " and ".join(self.parts[split])

    def part_of(self, split: str, file: AnnotationFile) -> Part:
        """Return what a file has to have in common with others."""
        known = file.categories()
        measured = split == self.validation
        return Part(file.name, known.names, file.files, measured, keypoints=known.keypoints)

    def note_file(self, file: AnnotationFile, findings: Findings) -> None:
        """Note what is unusual about a file without faults."""

    def _look_at(
        self, part: str, file: AnnotationFile, findings: Findings, *, decode: bool
    ) -> None:
        categories = file.category_records()
        findings.counts["categories"] = max(findings.counts.get("categories", 0), len(categories))
        findings.counts[f"{part} images"] = len(file.images)
        findings.counts[f"{part} annotations"] = file.annotations
        ids = [category["id"] for category in categories]
        if ids and ids != list(range(1, len(ids) + 1)):
            findings.notes.append(
                f"{file.name}: {len(ids)} category ids from {ids[0]} to {ids[-1]}, not counted "
                "from 1; that is fine"
            )
        named = [
            (image["file"], image["id"], (image["width"], image["height"])) for image in file.images
        ]
        check_files(file.root, named, findings, decode=decode)
        if file.sound:
            self.note_file(file, findings)


def scan_in_folder(
    root: Path, name: str, folder: str, findings: Findings, *, people: bool = False
) -> AnnotationFile:
    """Scan ROOT/annotations/NAME.json, whose images are in ROOT/FOLDER.

    Args:
        root: The data set's folder.
        name: Of the annotation file, without its ending.
        folder: Of the images.
        findings: Where faults go.
        people: Whether its categories must name keypoints.
    """
    return AnnotationFile(
        root,
        f"annotations/{name}.json",
        findings,
        lambda image: f"{folder}/{file_name(image, 'file_name')}",
        people=people,
    )
