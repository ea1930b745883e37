"""The artifact of the stage `features`: numbers for each image, in files that are mapped."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.vision.formats import Split

CARD = "features.json"
UNREAD = -1
"""Label of an image that could not be read."""


@dataclass(frozen=True)
class Features:
    """Features of the N images of a split that could be read.

    Attributes:
        pooled: (N, D), float32.
        labels: Classes, (N,).
        classes: Their names.
        images: What the data set calls the images; empty for those that are learned from.
    """

    pooled: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    images: tuple[str, ...]


def read_features(folder: Path, split: Split) -> Features:
    """Read a split of the artifact; features are mapped, and not in memory yet.

    Raises:
        DataError: if a file is missing or damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        pooled = np.load(folder / f"{split}.npy", mmap_mode="r")
        labels = np.load(folder / f"{split}_labels.npy")
        classes, images = tuple(card["classes"]), tuple(card[f"{split}_images"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} does not hold features of {split}: {error}") from None
    seen = labels != UNREAD
    if not seen.all():
        pooled, images = pooled[seen], tuple(np.array(images)[seen]) if images else ()
    return Features(pooled, labels[seen], classes, images)
