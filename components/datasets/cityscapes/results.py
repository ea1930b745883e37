"""Cityscapes' result format, a text file an image and a PNG an instance, and its metric."""

from dataclasses import dataclass
from pathlib import Path

from components.datasets.instances import InstanceSet
from components.datasets.results import MeasuredFigures, RecordsByImage, Results, measured_of
from components.evaluation import cityscapes
from components.vision import rle
from components.vision.prediction import Prediction


@dataclass(frozen=True)
class _Segment:
    """An instance in Cityscapes, small enough to be passed between processes."""

    label: int
    score: float
    size: tuple[int, int]
    runs: rle.Runs


class CityscapesResults(Results):
    """For each image a text file, and a PNG for each instance."""

    def __init__(self, images: InstanceSet, truth: Path) -> None:
        """Remember where the true instances are.

        Args:
            images: Those that are measured on.
            truth: A split's folder in gtFine.
        """
        super().__init__(images)
        self.truth = truth

    def records(self, index: int, prediction: Prediction) -> list[_Segment]:
        """Turn what was found in an image into instances with run lengths."""
        assert prediction.masks is not None, "the metric is of masks"
        ids = self.images.categories.ids
        masks = prediction.masks.numpy()
        labels, scores = prediction.labels.tolist(), prediction.scores.tolist()
        return [
            _Segment(int(ids[label]), score, mask.shape, rle.encode(mask))
            for label, score, mask in zip(labels, scores, masks, strict=True)
        ]

    def write(self, folder: Path, by_image: RecordsByImage) -> None:
        """Write the files of every image, one in which nothing was found included."""
        for index in range(len(self.images)):
            instances = (
                cityscapes.Instance(
                    record.label, record.score, rle.decode(record.runs, *record.size)
                )
                for record in by_image.get(index, ())
            )
            cityscapes.write_instances(folder, str(self.images.image_ids[index]), instances)

    def measure(self, folder: Path) -> MeasuredFigures:
        """Measure masks by Cityscapes' own metric."""
        return measured_of({"mask_": cityscapes.evaluate_instances(self.truth, folder)})
