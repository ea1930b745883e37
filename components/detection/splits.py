"""Which images of a data set a detector can learn from, and how often it is shown each."""

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.datasets.findings import TOLERATED
from components.datasets.instances import InstanceSet
from components.datasets.interface import DetectionReader
from components.vision.config import ALL
from components.vision.formats import Split
from components.vision.shares import share_of_images


def need_masks(images: InstanceSet, split: Split) -> None:
    """Refuse images whose instances have no masks, from which a mask head would learn nothing.

    Raises:
        DataError: if more of them lack one than published sets have.
    """
    count = len(images.labels)
    lacking = 0 if images.masked is None else int((~images.masked).sum())
    if lacking > TOLERATED * count:
        named = "training" if split == "train" else "validation"
        raise DataError(
            f"{images.root}: {lacking} of {count} {named} instances have no mask (segmentation), "
            "which the model learns and is measured on: give polygons or run lengths, or set "
            "model.masks to false to detect boxes only"
        )


def learnable(
    reader: DetectionReader, images: InstanceSet, percent: float = ALL, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Return the images that something can be learned from, as detectron2 chooses them.

    Args:
        reader: The data set's.
        images: The training split.
        percent: How many of a hundred of these images are taken.
        seed: Of the draw.

    Raises:
        DataError: if there is none, or fewer than classes.
    """
    owners = np.repeat(np.arange(len(images)), np.diff(images.starts))
    told = reader.instructive(images)
    kept = np.unique(owners[told])
    if not len(kept):
        raise DataError(
            f"{images.root}: none of {len(images)} training images shows an instance to learn from"
        )
    if percent == ALL:
        return kept.astype(np.int64)
    return share_of_images(owners[told], images.labels[told], percent, seed, str(images.root))


def repeat_factors(
    images: InstanceSet, kept: npt.NDArray[np.int64], threshold: float
) -> npt.NDArray[np.float64]:
    """Return how often an epoch shows each image, at least 1 (Gupta et al. 2019, B.2).

    A class that a share f of the images shows has max(1, √(t / f)); an image has the
    largest of its classes.

    Args:
        images: The set.
        kept: The images that count, ascending.
        threshold: t; 0 for 1 throughout.
    """
    owners = np.repeat(np.arange(len(images)), np.diff(images.starts))
    pairs = np.unique(np.stack([owners, images.labels], axis=1), axis=0)
    pairs = pairs[np.isin(pairs[:, 0], kept)]
    shares = np.bincount(pairs[:, 1], minlength=len(images.categories)) / len(kept)
    of_class = np.maximum(1, np.sqrt(threshold / np.maximum(shares, 1e-12)))
    factors = np.ones(len(images))
    np.maximum.at(factors, pairs[:, 0], of_class[pairs[:, 1]])
    return factors[kept]
