"""Cityscapes with fine annotations: segmentation (A.5)."""

import io
from pathlib import Path

import numpy as np

from components.core.errors import DataError
from components.datasets.cityscapes.files import IMAGE_ENDING, scan_stems
from components.datasets.findings import Findings
from components.datasets.interface import SegmentationReader
from components.datasets.semantic import SemanticSet
from components.evaluation.cityscapes import (
    CLASSES,
    ENDINGS,
    LABELS,
    evaluate_labels,
    to_label_ids,
    to_train_ids,
)
from components.evaluation.figures import Figures
from components.evaluation.semantic import Labels, read_label_map, write_label_map
from components.vision.image_sets import Names


class CityscapesLabels(SegmentationReader):
    """leftImg8bit/SPLIT/CITY, with labels in gtFine/SPLIT/CITY."""

    def scan(self, root: Path, split: str, findings: Findings) -> SemanticSet | None:
        """Report what is wrong with a split's files, and return what is there."""
        stems = scan_stems(root, split, findings)
        if not stems:
            return None
        return SemanticSet(
            root=root,
            files=Names(f"leftImg8bit/{split}/{stem}{IMAGE_ENDING}" for stem in stems),
            label_files=Names(f"gtFine/{split}/{stem}{ENDINGS['labels']}" for stem in stems),
            classes=tuple(CLASSES.values()),
            lookup=to_train_ids(np.arange(256)).astype(np.uint8),
            numbers=LABELS,
        )

    def prediction_name(self, image: str) -> str:
        """Name the file of an image's prediction, as the server finds it."""
        return f"{_city_image(image)}_labelIds.png"

    def encode(self, labels: Labels) -> bytes:
        """Return the file of a prediction, a PNG of label ids."""
        buffer = io.BytesIO()
        write_label_map(buffer, to_label_ids(labels))
        return buffer.getvalue()

    def decode(self, folder: Path, image: str) -> Labels:
        """Read an image's prediction, wherever below the folder it is.

        Raises:
            DataError: if there is none, or it cannot be read.
        """
        name = f"{_city_image(image)}*.png"
        path = next(folder.rglob(name), None)
        if path is None:
            raise DataError(f"{folder} has no {name}")
        return to_train_ids(read_label_map(path))

    def measure(self, images: SemanticSet, split: str, folder: Path) -> Figures:
        """Return mIoU and each class's IoU over the 19 classes, as Cityscapes' scripts do."""
        return evaluate_labels(images.root / "gtFine" / split, folder)


def _city_image(image: str) -> str:
    """Return CITY_SEQUENCE_FRAME."""
    return image.removesuffix("_leftImg8bit")
