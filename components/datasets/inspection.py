"""What a plan wants to know of data of one's own: that it can be used, and how much there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.dataset import Kind
from components.core.errors import DataError
from components.datasets.loading import detection_reader, image_reader, segmentation_reader
from components.datasets.semantic import pairs_of_masks
from components.vision.config import ALL
from components.vision.shares import share_of_images

IN_CODE_DIGEST = False  # plans are stated by it, and nothing is trained by it


@dataclass(frozen=True)
class Inspected:
    """A data set that can be used.

    Attributes:
        training: Images with labels to learn from.
        validation: Images to measure on.
        classes: How many.
        drawn: Whether the validation images are held out of the only split.
    """

    training: int
    validation: int
    classes: int
    drawn: bool = False


def inspect(
    name: str,
    kind: Kind,
    path: Path,
    *,
    labels: Sequence[float] = (ALL,),
    trials: int = 1,
    held_out: float | None = None,
) -> Inspected:
    """Read both splits of a data set as a training does.

    Args:
        name: Its layout.
        kind: What is learned from it.
        path: Its folder.
        labels: Percents of the labels that are to be learned from.
        trials: How many seeds draw them.
        held_out: Percent of each class that is held out where there is only one split.

    Raises:
        DataError: naming what a training could not use.
    """
    drawn = False
    shown: npt.NDArray[Any] | None
    if kind == "segmentation":
        masks, measured = segmentation_reader(name).read_both(path)
        shares = {*labels} - {ALL}
        owners, shown = pairs_of_masks(masks) if shares else (np.arange(len(masks)), None)
        classes, validation = len(masks.classes), len(measured)
    elif kind == "detection":
        reader = detection_reader(name)
        instances, measured_on = reader.read_both(path)
        told = reader.instructive(instances)
        owners = np.repeat(np.arange(len(instances)), np.diff(instances.starts))[told]
        shown = instances.labels[told]
        classes, validation = len(instances.categories), len(measured_on)
    else:
        images = image_reader(name)
        learned, judged = images.read_or_divide(path, held_out)
        owners, shown = np.arange(len(learned)), learned.labels
        classes, validation = len(learned.classes), len(judged)
        drawn = held_out is not None and images.undivided(path) is not None
    if shown is not None:
        for percent in sorted(labels):
            for seed in range(trials):
                share_of_images(owners, shown, percent, seed, str(path))
    training = len(np.unique(owners))
    if not (training and validation):
        raise DataError(
            f"{path}: {training} images to learn from and {validation} to measure on; both are "
            "needed"
        )
    return Inspected(training, validation, classes, drawn)
