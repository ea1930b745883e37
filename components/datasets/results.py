"""What was found, in each data set's own result format, and measured by its official metric.

Training and evaluation alike write the files first and measure what is in them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.datasets.instances import InstanceSet
from components.evaluation.figures import Figures
from components.vision.prediction import Prediction

RecordsByImage = Mapping[int, Sequence[Any]]
"""For each image that was looked at, by position, its records; they can be pickled."""


@dataclass(frozen=True)
class MeasuredFigures:
    """Figures in percent.

    Attributes:
        values: By metric name.
        per_class: For each metric name, by class name.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]


class Results(ABC):
    """A data set's result format and metric; made before training, it finds faults then."""

    def __init__(self, images: InstanceSet) -> None:
        """Take the images that are measured on."""
        self.images = images

    @abstractmethod
    def records(self, index: int, prediction: Prediction) -> list[Any]:
        """Turn what was found in an image into records; boxes without area are left out."""

    @abstractmethod
    def write(self, folder: Path, by_image: RecordsByImage) -> None:
        """Write all records, which must be fit to be measured."""

    @abstractmethod
    def measure(self, folder: Path) -> MeasuredFigures:
        """Measure what `write` or another code base wrote.

        Raises:
            DataError: if it does not fit the data.
        """


def measured_of(figures: Mapping[str, Figures]) -> MeasuredFigures:
    """Put figures together under their prefixes.

    Raises:
        DataError: if nothing can be measured.
    """
    values = {
        f"{prefix}{name}": value
        for prefix, part in figures.items()
        for name, value in part.values.items()
    }
    if not values:
        raise DataError("the validation images show no instance: there is nothing to measure")
    return MeasuredFigures(
        values,
        {f"{prefix}AP": part.per_class for prefix, part in figures.items() if part.per_class},
    )
