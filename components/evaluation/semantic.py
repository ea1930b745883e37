"""Mean intersection over union of label maps, from one exact count of pixels."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.core.errors import DataError
from components.evaluation.figures import Figures

IGNORED = 255
Labels = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]


class Confusion:
    """Counts pixels by true and by predicted class; ignored pixels take no part.

    Attributes:
        classes: Names of the classes, in the order of their labels.
        counts: Pixels by true class and predicted class, (C, C + 1): the last column is of
            pixels that were given no class, which count as missed.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.counts: Counts = np.zeros((len(classes), len(classes) + 1), np.int64)

    def add(self, truth: Labels, predicted: Labels, name: str = "an image") -> None:
        """Count one image, or many.

        Args:
            truth: Labels, any shape; 255 is ignored.
            predicted: Labels of the same shape; 255 is no class.
            name: What an error calls the image.

        Raises:
            DataError: if the shapes differ, or a label is of no class.
        """
        if truth.shape != predicted.shape:
            raise DataError(
                f"{name}: the prediction is {predicted.shape}, the truth {truth.shape} "
                "(height, width); predict at the original size"
            )
        number = len(self.classes)
        for what, labels in (("truth", truth), ("prediction", predicted)):
            wrong = np.unique(labels[((labels < 0) | (labels >= number)) & (labels != IGNORED)])
            if wrong.size:
                raise DataError(
                    f"{name}: the {what} has label {wrong[0]}, but there are {number} classes, "
                    f"0 to {number - 1}, and {IGNORED} for none"
                )
        counted = truth != IGNORED
        rows = truth[counted].astype(np.int64)
        columns = np.minimum(predicted[counted].astype(np.int64), number)
        pairs = np.bincount(rows * (number + 1) + columns, minlength=self.counts.size)
        self.counts += pairs.reshape(self.counts.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the IoU of each class, (C,); NaN where it is neither true nor predicted."""
        right = np.diag(self.counts)
        union = self.counts.sum(1) + self.counts[:, :-1].sum(0) - right
        with np.errstate(invalid="ignore"):
            iou: npt.NDArray[np.float64] = right / union
        return iou

    def figures(self) -> Figures:
        """Return mIoU and the share of right pixels (pixel_accuracy), and each class's IoU."""
        iou = self.iou()
        present = ~np.isnan(iou)
        if not present.any():
            return Figures({})
        return Figures(
            values={
                "mIoU": float(iou[present].mean()) * 100,
                "pixel_accuracy": float(np.trace(self.counts) / self.counts.sum()) * 100,
            },
            per_class={
                name: float(value) * 100
                for name, value in zip(self.classes, iou, strict=True)
                if not np.isnan(value)
            },
        )


def write_label_map(
    file: Path | BinaryIO, labels: Labels, palette: npt.NDArray[np.uint8] | None = None
) -> None:
    """Write a label map, (H, W), as the 8-bit PNG that VOC's and Cityscapes' servers take.

    Args:
        file: Where.
        labels: Class numbers.
        palette: Colours of the numbers, (256, 3), as VOC's own files have them.
    """
    image = Image.fromarray(labels.astype(np.uint8))
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(file, format="PNG")


def read_label_map(path: Path) -> Labels:
    """Read labels, (H, W), of a PNG: the indices of a palette, or grey values.

    Raises:
        DataError: if it cannot be read, or has colours instead of labels.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "I", "I;16"):
                raise DataError(
                    f"{path} has colours ({image.mode}) instead of labels: store class indices"
                )
            return np.asarray(image)
    except OSError as error:
        raise DataError(f"cannot read the label map {path}: {error}") from None


def evaluate_label_maps(pairs: Iterable[tuple[Path, Path]], classes: Sequence[str]) -> Figures:
    """Return mIoU over files.

    Args:
        pairs: The true and the predicted label map of each image.
        classes: Names of the classes, in the order of their labels.

    Raises:
        DataError: if a file cannot be read, or its labels or size do not fit.
    """
    confusion = Confusion(classes)
    for truth, predicted in pairs:
        confusion.add(read_label_map(truth), read_label_map(predicted), predicted.name)
    return confusion.figures()
