"""Loads what reads a data set, by name."""

from components.core.dataset import Kind, find_dataset
from components.core.errors import UsageError
from components.datasets.interface import (
    DetectionReader,
    ImageReader,
    SegmentationReader,
)

_IMAGES: tuple[Kind, ...] = ("classification", "images")


def image_reader(name: str) -> ImageReader:
    """Return what reads images, with classes or without.

    Raises:
        UsageError: if there is no such data set, or a package that it needs is missing.
    """
    declared = find_dataset(name)
    kind = next((kind for kind in _IMAGES if kind in declared.readers), None)
    if kind is None:
        raise UsageError(f"data set {name} is for {' and '.join(declared.readers)}, not for images")
    reader: ImageReader = declared.load(kind)
    return reader


def detection_reader(name: str) -> DetectionReader:
    """Return what reads images with instances.

    Raises:
        UsageError: as `image_reader`.
    """
    reader: DetectionReader = find_dataset(name, "detection").load("detection")
    return reader


def segmentation_reader(name: str) -> SegmentationReader:
    """Return what reads images with a class for every pixel.

    Raises:
        UsageError: as `image_reader`.
    """
    reader: SegmentationReader = find_dataset(name, "segmentation").load("segmentation")
    return reader
