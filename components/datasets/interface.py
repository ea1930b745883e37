"""What stages and `moco data check` ask of a data set, by what is learned from it.

A data set of one's own implements `scan`, which reports faults and returns what can be used.
Training reads by it and refuses what has any; the check runs it to the end, looks at the files, and
lists all.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.datasets.files import check_decoding, check_files
from components.datasets.findings import Findings, strictly
from components.datasets.instances import InstanceSet, Mirroring
from components.datasets.labels import check_labels
from components.datasets.parts import Part, compare_parts
from components.datasets.semantic import SemanticSet, palette
from components.datasets.shards import check_hashes, is_sharded, scan_shards
from components.evaluation.figures import Figures, refuse
from components.evaluation.semantic import Confusion, Labels, read_label_map, write_label_map
from components.vision.image_sets import ImageSet
from components.vision.shares import hold_out, only

if TYPE_CHECKING:  # what measures detections needs torch, and more
    from components.datasets.results import Results

Images = TypeVar("Images", ImageSet, InstanceSet, SemanticSet)


class DatasetReader(ABC, Generic[Images]):
    """What reads a data set.

    Attributes:
        name: Of the data set, as its declaration has it.
        title: What people call it, for comparisons with its published sizes.
        published: Counts that a whole download has, by what `check` calls them.
        training: The split that is learned from.
        validation: The split that is measured on.
        further: Splits that are checked besides, and are not measured on.
    """

    title: ClassVar[str] = ""
    published: ClassVar[Mapping[str, int]] = {}
    training: ClassVar[str] = "train"
    validation: ClassVar[str] = "val"
    further: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def scan(self, root: Path, split: str, findings: Findings) -> Images | None:
        """Report what is wrong with a split, and return what can be used; None if nothing can."""

    def scan_split(self, root: Path, split: str, findings: Findings) -> Images | None:
        """Report what is wrong with a split in whatever form it is, as `scan` does."""
        return self.scan(root, split, findings)

    @abstractmethod
    def part(self, split: str, images: Images) -> Part:
        """Return what a split has to have in common with others, and what it must not."""

    @abstractmethod
    def look(
        self, root: Path, split: str, images: Images, findings: Findings, *, decode: bool
    ) -> None:
        """Report what is wrong with a split's files.

        Args:
            root: The data set's folder.
            split: Which one.
            images: What `scan` returned.
            findings: Where faults go.
            decode: Whether to decode images too, and to look at every pixel's class.
        """

    def read(self, root: Path, split: str) -> Images:
        """Read a split; images are not opened.

        Raises:
            DataError: if it has a fault.
        """
        return strictly(lambda findings: self.scan_split(root, split, findings), root, self.name)

    def read_both(self, root: Path) -> tuple[Images, Images]:
        """Read training and validation.

        Raises:
            DataError: if one has a fault, or they do not fit together.
        """
        both = (self.training, self.validation)

        def scan(findings: Findings) -> dict[str, Images]:
            by_split = dict(self._scan_all(root, both, findings))
            self.compare(by_split, findings)
            return by_split

        by_split = strictly(scan, root, self.name)
        return by_split[self.training], by_split[self.validation]

    def check(self, root: Path, findings: Findings, *, decode: bool) -> None:
        """Find every fault: read all, then look at the files.

        Args:
            root: The data set's folder.
            findings: Where faults, notes and counts go.
            decode: As of `look`.
        """
        splits = dict.fromkeys((self.training, *self.further, self.validation))
        by_split: dict[str, Images] = {}
        for split, images in self._scan_all(root, splits, findings):
            by_split[split] = images
            self.count(split, images, findings)
            self.look(root, split, images, findings, decode=decode)
        self.compare(by_split, findings)
        findings.compare(self.published, self.title)
        for split, images in by_split.items():
            self.note(split, images, findings)

    def shown(self, split: str) -> str:
        """Name the file or folder of a split, for faults."""
        return split

    def count(self, split: str, images: Images, findings: Findings) -> None:
        """Say how much there is of a split."""
        findings.counts[f"{split} images"] = len(images)

    def note(self, split: str, images: Images, findings: Findings) -> None:
        """Note what is unusual about a split."""

    def compare(self, by_split: Mapping[str, Images], findings: Findings) -> None:
        """Report splits that do not fit together."""
        compare_parts([self.part(split, images) for split, images in by_split.items()], findings)

    def _scan_all(
        self, root: Path, splits: Iterable[str], findings: Findings
    ) -> Iterator[tuple[str, Images]]:
        for split in splits:
            images = self.scan_split(root, split, findings)
            if images is not None:
                yield split, images


class ImageReader(DatasetReader[ImageSet]):
    """Images for pre-training, and with classes for classification; in files, or in shards."""

    def scan_split(self, root: Path, split: str, findings: Findings) -> ImageSet | None:
        """Report what is wrong with a split, and return what can be used."""
        if is_sharded(root, split):
            return scan_shards(root, split, findings)
        return self.scan(root, split, findings)

    def undivided(self, root: Path) -> str | None:
        """Name the only split of data without validation, for `read`; None if it has one.

        It is asked only where a validation split may be drawn.
        """
        return None

    def read_or_divide(self, root: Path, held_out: float | None) -> tuple[ImageSet, ImageSet]:
        """Read training and validation; where there is only one split, hold some of it out.

        Args:
            root: The data set's folder.
            held_out: Percent of each class; None refuses data without validation.

        Raises:
            DataError: if one has a fault, or they do not fit together.
        """
        whole = None if held_out is None else self.undivided(root)
        if held_out is None or whole is None:
            return self.read_both(root)
        images = self.read(root, whole)
        held = hold_out(images.labels, held_out)
        return only(images, np.flatnonzero(~held)), only(images, np.flatnonzero(held))

    def part(self, split: str, images: ImageSet) -> Part:
        """Return a split's classes and files."""
        # Those of a split's shards are in no other one.
        files = [] if images.shard_bytes else [f"{images.root}/{file}" for file in images.files]
        return Part(self.shown(split), images.classes, files, measured=split == self.validation)

    def look(
        self, root: Path, split: str, images: ImageSet, findings: Findings, *, decode: bool
    ) -> None:
        """Report what is wrong with the images."""
        if is_sharded(root, split):
            if decode:
                check_hashes(root, split, findings)
                check_decoding(images, findings)
            return
        folder = root if root.is_dir() else root.parent
        below = images.root.relative_to(folder)
        names = (
            (str(below / name), images.image_id(index) if len(images.ids) else "", None)
            for index, name in enumerate(images.files)
        )
        check_files(folder, names, findings, decode=decode)

    def count(self, split: str, images: ImageSet, findings: Findings) -> None:
        """Say how much there is of a split."""
        findings.counts |= {
            f"{split} classes": len(images.classes),
            f"{split} images": len(images),
        }


class DetectionReader(DatasetReader[InstanceSet]):
    """Images with instances; `scan` returns only what has no fault."""

    @abstractmethod
    def results(self, root: Path, images: InstanceSet, *, masks: bool, geometry: bool) -> "Results":
        """Make what writes and measures predictions, by the data set's own metric.

        Args:
            root: The data set's folder.
            images: The validation split.
            masks: Whether the model finds masks.
            geometry: Whether surfaces are measured, where the data set has them.

        Raises:
            DataError: if the annotations cannot be measured on.
        """

    def mirroring(self, root: Path) -> Mirroring:
        """Read where points of a surface go in a mirror.

        Raises:
            DataError: if the data set has no surfaces, or its geometry is missing.
        """
        raise DataError(f"{root}: {self.name} has no surfaces to mirror")

    def instructive(self, images: InstanceSet) -> npt.NDArray[np.bool_]:
        """Say of which instances something can be learned, (M,)."""
        return ~images.crowd

    def part(self, split: str, images: InstanceSet) -> Part:
        """Return a split's classes, keypoints and files."""
        return Part(
            self.shown(split),
            images.categories.names,
            images.files,
            measured=split == self.validation,
            keypoints=images.categories.keypoints,
        )

    def look(
        self, root: Path, split: str, images: InstanceSet, findings: Findings, *, decode: bool
    ) -> None:
        """Report what is wrong with the images, and those of another size than annotated."""
        sizes = ((width, height) for height, width in images.sizes.tolist())
        named = zip(images.files, images.image_ids, sizes, strict=True)
        check_files(images.root, named, findings, decode=decode)


class SegmentationReader(DatasetReader[SemanticSet]):
    """Images with a class for every pixel.

    Predictions are a PNG of class numbers an image, called like it, and are measured by mIoU.
    """

    def part(self, split: str, images: SemanticSet) -> Part:
        """Return a split's classes and files."""
        measured = split == self.validation
        return Part(self.shown(split), images.classes, images.files, measured)

    def look(
        self, root: Path, split: str, images: SemanticSet, findings: Findings, *, decode: bool
    ) -> None:
        """Report what is wrong with the images and their labels."""
        check_labels(root, images, findings, decode=decode)

    def prediction_name(self, image: str) -> str:
        """Name the file of an image's prediction, as the data set's server finds it."""
        return f"{image}.png"

    def encode(self, labels: Labels) -> bytes:
        """Return the file of a prediction: classes from 0, (H, W), in the data set's numbers."""
        buffer = io.BytesIO()
        write_label_map(buffer, self.to_numbers(labels), palette())
        return buffer.getvalue()

    def decode(self, folder: Path, image: str) -> Labels:
        """Read an image's prediction: classes from 0, (H, W).

        Raises:
            DataError: if it cannot be read.
        """
        return self.from_numbers(read_label_map(folder / self.prediction_name(image)))

    def to_numbers(self, labels: Labels) -> Labels:
        """Turn classes into the data set's own numbers."""
        return labels

    def from_numbers(self, numbers: Labels) -> Labels:
        """Turn the data set's own numbers into classes."""
        return numbers

    def measure(self, images: SemanticSet, split: str, folder: Path) -> Figures:
        """Return mIoU and each class's IoU of stored predictions.

        Raises:
            DataError: if an image has none, or one has another size or an unknown class.
        """
        names = [self.prediction_name(images.image_id(index)) for index in range(len(images))]
        refuse(
            folder,
            [f"{name} is missing" for name in names if not (folder / name).is_file()],
            f"Each of the {len(images)} images of {split} needs a label map",
        )
        confusion = Confusion(images.classes)
        for index, name in enumerate(names):
            predicted = self.decode(folder, images.image_id(index))
            confusion.add(images.labels(index), predicted, name)
        return confusion.figures()
