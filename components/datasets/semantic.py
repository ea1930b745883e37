"""The common form of segmentation data: an image, and a picture of class numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.evaluation.semantic import IGNORED
from components.vision.config import ALL
from components.vision.image_sets import Names
from components.vision.masks import read_values
from components.vision.shares import Indices, share_of_images


@dataclass(frozen=True)
class SemanticSet:
    """Images with a class for every pixel; nothing is opened until it is needed.

    Attributes:
        root: The folder that file names are relative to.
        files: File names of the images.
        label_files: File names of the pictures of class numbers.
        classes: Class names, in the order of the numbers.
        lookup: The number here of each number in a file, (256,), uint8; None if they are equal.
        numbers: How many numbers a file may have, from 0, and 255 besides.
    """

    root: Path
    files: Sequence[str]
    label_files: Sequence[str]
    classes: tuple[str, ...]
    lookup: npt.NDArray[np.uint8] | None = None
    numbers: int = IGNORED

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return f"{self.root}/{self.files[index]}"

    def image_id(self, index: int) -> str:
        """Return what the data set calls an image."""
        return Path(self.files[index]).stem

    def labels(self, index: int) -> npt.NDArray[np.uint8]:
        """Read the class of every pixel, (height, width); 255 where it does not count.

        Raises:
            DataError: if the file cannot be read, or has a number that is no class.
        """
        path = f"{self.root}/{self.label_files[index]}"
        try:
            values = read_values(path)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"cannot read the labels {path}: {error}") from None
        if values.ndim != 2 or values.min() < 0 or values.max() > IGNORED:
            raise DataError(f"{path}: colours or numbers over {IGNORED} instead of class numbers")
        most = values.max(where=values != IGNORED, initial=0)
        if most >= self.numbers:
            raise DataError(f"{path}: the number {most}, where 0 to {self.numbers - 1} can be")
        if self.lookup is not None and most < len(self.classes) and IGNORED in values:
            raise DataError(
                f"{path}: no number over {most} but {IGNORED}: these are numbers for training, "
                f"where the data set's own, 0 to {self.numbers - 1}, are needed"
            )
        labels = values.astype(np.uint8) if self.lookup is None else self.lookup[values]
        wrong = labels[(labels >= len(self.classes)) & (labels != IGNORED)]
        if len(wrong):
            raise DataError(
                f"{path}: class {wrong.max()} of {len(self.classes)} classes (0 to "
                f"{len(self.classes) - 1}, {IGNORED} where a pixel does not count)"
            )
        return labels


def labelled_masks(images: SemanticSet, percent: float, seed: int) -> SemanticSet:
    """Return the same of images with a class for every pixel; a part opens every label map."""
    if percent == ALL:
        return images
    drawn = share_of_images(*pairs_of_masks(images), percent, seed, str(images.root)).tolist()
    return replace(
        images,
        files=Names(images.files[index] for index in drawn),
        label_files=Names(images.label_files[index] for index in drawn),
    )


def pairs_of_masks(images: SemanticSet) -> tuple[Indices, Indices]:
    """Return the image and the class of each class that an image shows."""
    shown = [np.unique(images.labels(index)) for index in range(len(images))]
    labels = np.concatenate(shown).astype(np.int64)
    owners = np.repeat(np.arange(len(images)), [len(classes) for classes in shown])
    return owners[labels != IGNORED], labels[labels != IGNORED]


def palette() -> npt.NDArray[np.uint8]:
    """Return VOC's colours, (256, 3): a number's bits, three by three, become high bits of RGB."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> channel & 1) << 7 - bit
        numbers >>= 3
    return colours.astype(np.uint8)
