"""What was found, in each data set's own result format, and measured by its official metric.

Training and evaluation alike write the files first and measure what is in them.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.core.errors import DataError
from components.detection.config import DetectionConfig
from components.detection.interface import Prediction
from components.detection.splits import DENSEPOSE_TEST, VOC_TEST
from components.evaluation import cityscapes, voc
from components.evaluation.annotations import Kind, Record, check_annotations
from components.evaluation.coco import evaluate_coco
from components.evaluation.densepose import encode_iuv, evaluate_densepose
from components.evaluation.figures import Figures
from components.evaluation.lvis import evaluate_lvis
from components.evaluation.results import check_results, encode_mask, read_results, write_results
from components.evaluation.surface import read_surface
from components.vision.datasets import rle
from components.vision.datasets.coco_json import read_document
from components.vision.datasets.densepose import geometry_folder
from components.vision.datasets.instances import InstanceSet
from components.vision.datasets.layout import EVALUATION_GEOMETRY, lvis_file

PREFIXES: Mapping[Kind, str] = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}
"""Of a metric's name: `AP` is of boxes, as the paper's AP^bb; `mask_AP` its AP^mk."""

Found = Mapping[int, Sequence[Any]]
"""For each image that was looked at, by position, its records; they can be pickled."""


@dataclass(frozen=True)
class Measured:
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
    def write(self, folder: Path, found: Found) -> None:
        """Write all records, which must be fit to be measured."""

    @abstractmethod
    def measure(self, folder: Path) -> Measured:
        """Measure what `write` or another code base wrote.

        Raises:
            DataError: if it does not fit the data.
        """


def make_results(config: DetectionConfig, root: Path, images: InstanceSet) -> Results:
    """Make the results of a task.

    Args:
        config: The stage's.
        root: The data set's folder.
        images: Those that are measured on.

    Raises:
        DataError: if the annotations cannot be measured on, or DensePose's geometry is missing.
    """
    if config.task == "voc":
        return VocResults(images, VOC_TEST[1])
    if config.task == "cityscapes":
        return CityscapesResults(images, root / "gtFine" / "val")
    if config.task == "lvis":
        path = lvis_file(root, "val")
        assert path is not None, "its images were read"
        return CocoResults(images, path, ("bbox", "segm"), federated=True)
    folder = root / "annotations"
    if config.task == "keypoints":
        return CocoResults(images, folder / "person_keypoints_val2017.json", ("bbox", "keypoints"))
    if config.task == "densepose":
        without = getattr(config, "without_geometry", False)
        works = (
            "boxes can be measured: set without_geometry to true, and evaluate the stored "
            "predictions when the files are there"
        )
        geometry = None if without else geometry_folder(root, EVALUATION_GEOMETRY, works)
        return DensePoseResults(images, folder / f"densepose_{DENSEPOSE_TEST}.json", geometry)
    kinds: tuple[Kind, ...] = ("bbox", "segm") if config.model.masks else ("bbox",)
    return CocoResults(images, folder / "instances_val2017.json", kinds)


class CocoResults(Results):
    """One JSON file in COCO's result format; LVIS has it too."""

    FILE = "results.json"

    def __init__(
        self,
        images: InstanceSet,
        annotations: Path,
        kinds: Sequence[Kind],
        *,
        federated: bool = False,
    ) -> None:
        """Read the annotations.

        Args:
            images: Those that are measured on.
            annotations: Their file.
            kinds: What is measured.
            federated: By LVIS's rules.

        Raises:
            DataError: if they cannot be measured on.
        """
        super().__init__(images)
        self.kinds = kinds
        self.federated = federated
        self.annotations = read_document(annotations, people="keypoints" in kinds)
        for kind in kinds:
            check_annotations(self.annotations, kind, annotations)

    def records(self, index: int, prediction: Prediction) -> list[Record]:
        """Turn what was found in an image into records of COCO's result format."""
        # The difference in single precision, as DensePose's surfaces are cut by it.
        sides = (prediction.boxes[:, 2:] - prediction.boxes[:, :2]).tolist()
        records = []
        for place, box in enumerate(prediction.boxes.tolist()):
            if not min(sides[place]) > 0:
                continue
            record: Record = {
                "image_id": int(self.images.image_ids[index]),
                "category_id": int(self.images.categories.ids[int(prediction.labels[place])]),
                "score": float(prediction.scores[place]),
                "bbox": [*box[:2], *sides[place]],
            }
            if prediction.masks is not None:
                record["segmentation"] = encode_mask(prediction.masks[place].numpy())
            if prediction.keypoints is not None:
                keypoints = prediction.keypoints[place].clone()
                keypoints[:, :2] -= 0.5  # from places to numbers of pixels
                record["keypoints"] = keypoints.flatten().tolist()
            if prediction.surfaces is not None:
                record |= encode_iuv(prediction.surfaces[place].numpy())
            records.append(record)
        return records

    def write(self, folder: Path, found: Found) -> None:
        """Write `results.json`, as an evaluation server takes it."""
        records = [record for index in sorted(found) for record in found[index]]
        for kind in self.kinds[1:]:
            check_results(records, self.annotations, kind)
        write_results(folder / self.FILE, records, self.annotations, self.kinds[0])

    def measure(self, folder: Path) -> Measured:
        """Measure boxes, masks or keypoints by COCO's or LVIS's metric."""
        evaluate = evaluate_lvis if self.federated else evaluate_coco
        figures = {}
        for kind in self.kinds:
            records = read_results(folder / self.FILE, self.annotations, kind)
            figures[PREFIXES[kind]] = evaluate(self.annotations, records, kind)
        return _measured(figures)


class DensePoseResults(CocoResults):
    """COCO's result format with the surface of each person, as the DensePose challenge has it."""

    def __init__(self, images: InstanceSet, annotations: Path, geometry: Path | None) -> None:
        """Read the annotations.

        Args:
            images: Those that are measured on.
            annotations: Their file.
            geometry: Folder of DensePose's evaluation files; None to measure boxes only.

        Raises:
            DataError: if they cannot be measured on.
        """
        super().__init__(images, annotations, ("bbox",))
        self.geometry = geometry

    def measure(self, folder: Path) -> Measured:
        """Measure boxes by COCO's metric, and surfaces by geodesic point similarity."""
        boxes = super().measure(folder)
        if self.geometry is None:
            return boxes
        records = read_results(folder / self.FILE, self.annotations, "bbox")
        figures = evaluate_densepose(self.annotations, records, read_surface(self.geometry))
        points = _measured({"gps_": figures})
        return Measured({**boxes.values, **points.values}, boxes.per_class)


class VocResults(Results):
    """The devkit's text files, one for each class."""

    def __init__(self, images: InstanceSet, split: str) -> None:
        """Take the objects of a year's split."""
        super().__init__(images)
        self.split = split
        names = images.categories.names
        self.truth = {
            one.image_id: voc.Truth(
                names=tuple(names[label] for label in one.labels.tolist()),
                boxes=one.boxes + np.array([1.0, 1.0, 0.0, 0.0]),  # as the files count
                difficult=one.difficult,
            )
            for one in images
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

    def write(self, folder: Path, found: Found) -> None:
        """Write comp4_det_SPLIT_CLASS.txt for every class."""
        records = [record for index in sorted(found) for record in found[index]]
        voc.write_results(folder, self.split, records, self.truth, self.images.categories.names)

    def measure(self, folder: Path) -> Measured:
        """Measure by VOC 2007's 11 points, and by the area under the curve beside it."""
        names = self.images.categories.names
        return _measured({"": voc.evaluate_voc(self.truth, folder, self.split, names)})


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

    def write(self, folder: Path, found: Found) -> None:
        """Write the files of every image, one in which nothing was found included."""
        for index in range(len(self.images)):
            instances = (
                cityscapes.Instance(one.label, one.score, rle.decode(one.runs, *one.size))
                for one in found.get(index, ())
            )
            cityscapes.write_instances(folder, str(self.images.image_ids[index]), instances)

    def measure(self, folder: Path) -> Measured:
        """Measure masks by Cityscapes' own metric."""
        return _measured({PREFIXES["segm"]: cityscapes.evaluate_instances(self.truth, folder)})


def write_per_class(path: Path, images: InstanceSet, measured: Measured) -> None:
    """Write for every class, in the order of the labels, its instances and its figures."""
    counts = np.bincount(images.labels, minlength=len(images.categories)).tolist()
    rows = [
        {
            "class": name,
            "instances": count,
            **{metric: of_class.get(name) for metric, of_class in measured.per_class.items()},
        }
        for name, count in zip(images.categories.names, counts, strict=True)
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def _measured(figures: Mapping[str, Figures]) -> Measured:
    """Put figures together under their prefixes.

    Raises:
        DataError: if nothing can be measured.
    """
    values = {
        f"{prefix}{name}": value
        for prefix, one in figures.items()
        for name, value in one.values.items()
    }
    if not values:
        raise DataError("the validation images show no instance: there is nothing to measure")
    return Measured(
        values, {f"{prefix}AP": one.per_class for prefix, one in figures.items() if one.per_class}
    )
