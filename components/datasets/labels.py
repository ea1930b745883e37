"""Checks pictures of class numbers against the images that they are of."""

from pathlib import Path

from components.core.errors import DataError
from components.datasets.files import check_files, image_fault, image_size
from components.datasets.findings import Findings
from components.datasets.semantic import SemanticSet


def check_labels(root: Path, images: SemanticSet, findings: Findings, *, decode: bool) -> None:
    """Check that each image and its labels are there, whole, and of one size.

    Args:
        root: The data set's folder.
        images: Those to look at.
        findings: Where faults go.
        decode: Whether to decode them, and to look at every pixel's class.
    """
    below = images.root.relative_to(root)
    names = [str(below / file) for file in images.files]
    check_files(root, [(name, "", None) for name in names], findings, decode=decode)
    for index, name in enumerate(names):
        labels = str(below / images.label_files[index])
        message = image_fault(root / labels, _size(root / name), decode=False)
        if message is None and decode:
            try:
                images.labels(index)
            except DataError as error:
                message = str(error).removeprefix(f"{root / labels}: ")
        if message:
            findings.fault(labels, message.replace("the annotation says", "the image is"))


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except OSError:
        return None
