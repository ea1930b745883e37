"""scikit-learn's 1,797 real handwritten digits, divided for good into training and validation."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from components.vision.formats import Split

VAL_DIGITS = 397

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SUPERCATEGORIES = {"Round": (0, 3, 6, 8, 9), "Straight": (1, 4, 7), "Mixed": (2, 5)}
"""Groups of digits by their strokes."""


@dataclass(frozen=True)
class Digits:
    """Real digits of one split.

    Attributes:
        images: Ink from 0 to 1, (N, 8, 8), float32.
        labels: What they show, (N,).
        sources: Their positions in scikit-learn's set, (N,).
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]

    def of_class(self, label: int) -> npt.NDArray[np.int64]:
        """Return the positions of the digits that show `label`."""
        return np.flatnonzero(self.labels == label)

    def half(self, which: int) -> "Digits":
        """Return every other digit of each class: half 0 or half 1."""
        order = np.argsort(self.labels, kind="stable")[which::2]
        return Digits(self.images[order], self.labels[order], self.sources[order])


@cache
def real_digits(split: Split) -> Digits:
    """Return 1,400 digits for training or 397 for validation, the classes in equal shares.

    The division is fixed: no digit is ever in both, whatever a config says.
    """
    everything = load_digits()
    train, val = train_test_split(
        np.arange(len(everything.target)),
        test_size=VAL_DIGITS,
        stratify=everything.target,
        random_state=0,
    )
    sources = np.sort(train if split == "train" else val)
    return Digits(
        images=(everything.images[sources] / 16).astype(np.float32),
        labels=everything.target[sources].astype(np.int64),
        sources=sources,
    )
