"""Masks of instances: kept as small as they came, decoded when asked."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.vision import rle
from components.vision.rle import Pixels, Runs

Polygon = npt.NDArray[np.float64]
"""Corners (x, y), (P, 2), pixels from the image's top left corner."""


class Mask(Protocol):
    """Which pixels belong to an instance."""

    def decode(self) -> Pixels:
        """Return the pixels, (height, width)."""
        ...


@dataclass(frozen=True)
class PolygonMask:
    """One or more polygons, as most instances have them."""

    polygons: tuple[Polygon, ...]
    height: int
    width: int

    def decode(self) -> Pixels:
        """Return the pixels, (height, width), equal to those of the official metrics."""
        return rle.fill(self.polygons, self.height, self.width)


@dataclass(frozen=True)
class RunMask:
    """Run lengths, as crowds have them."""

    runs: Runs
    height: int
    width: int

    def decode(self) -> Pixels:
        """Return the pixels, (height, width)."""
        return rle.decode(self.runs, self.height, self.width)


@dataclass(frozen=True)
class ValueMask:
    """The pixels that have one value in a file, as Cityscapes' instances are kept."""

    file: str
    value: int

    def decode(self) -> Pixels:
        """Return the pixels, (height, width)."""
        pixels: Pixels = read_values(self.file) == self.value
        return pixels


@lru_cache(maxsize=4)
def read_values(file: str | Path) -> npt.NDArray[np.int32]:
    """Read a picture whose pixels are numbers, not colours, (height, width).

    The instances of an image ask for the same file one after the other.
    """
    with Image.open(file) as image:
        return np.array(image, np.int32)
