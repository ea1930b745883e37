"""VOC's result format, a text file for each class, and its metric."""

from pathlib import Path

import numpy as np

from components.datasets.instances import InstanceSet
from components.datasets.results import MeasuredFigures, RecordsByImage, Results, measured_of
from components.evaluation import voc
from components.vision.prediction import Prediction


class VocResults(Results):
    """The devkit's text files, one for each class."""

    def __init__(self, images: InstanceSet, split: str) -> None:
        """Take the objects of a year's split."""
        super().__init__(images)
        self.split = split
        names = images.categories.names
        self.truth = {
            image.image_id: voc.Truth(
                names=tuple(names[label] for label in image.labels.tolist()),
                boxes=image.boxes + np.array([1.0, 1.0, 0.0, 0.0]),  # as the files count
                difficult=image.difficult,
            )
            for image in images
        }

    def records(self, index: int, prediction: Prediction) -> list[voc.Detection]:
        """Turn what was found in an image into the devkit's detections."""
        image, names = str(self.images.image_ids[index]), self.images.categories.names
        return [
            voc.Detection(image, names[label], score, (left, top, right, bottom))
            for (left, top, right, bottom), score, label in zip(
                prediction.boxes.tolist(),
                prediction.scores.tolist(),
                prediction.labels.tolist(),
                strict=True,
            )
            if right > left and bottom > top
        ]

    def write(self, folder: Path, by_image: RecordsByImage) -> None:
        """Write comp4_det_SPLIT_CLASS.txt for every class."""
        records = [record for index in sorted(by_image) for record in by_image[index]]
        voc.write_results(folder, self.split, records, self.truth, self.images.categories.names)

    def measure(self, folder: Path) -> MeasuredFigures:
        """Measure by VOC 2007's 11 points, and by the area under the curve beside it."""
        names = self.images.categories.names
        return measured_of({"": voc.evaluate_voc(self.truth, folder, self.split, names)})
