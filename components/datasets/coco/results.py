"""COCO's result format, one JSON file, which LVIS and DensePose have, too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from components.datasets.coco.file import read_document
from components.datasets.instances import InstanceSet
from components.datasets.results import MeasuredFigures, RecordsByImage, Results, measured_of
from components.evaluation.annotations import Kind, Record, check_annotations
from components.evaluation.coco import evaluate_coco
from components.evaluation.densepose import encode_iuv, evaluate_densepose
from components.evaluation.lvis import evaluate_lvis
from components.evaluation.results import check_results, encode_mask, read_results, write_results
from components.evaluation.surface import read_surface
from components.vision.prediction import Prediction

PREFIXES: Mapping[Kind, str] = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}
"""Of a metric's name: `AP` is of boxes, as the paper's AP^bb; `mask_AP` its AP^mk."""


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

    def write(self, folder: Path, by_image: RecordsByImage) -> None:
        """Write `results.json`, as an evaluation server takes it."""
        records = [record for index in sorted(by_image) for record in by_image[index]]
        for kind in self.kinds[1:]:
            check_results(records, self.annotations, kind)
        write_results(folder / self.FILE, records, self.annotations, self.kinds[0])

    def measure(self, folder: Path) -> MeasuredFigures:
        """Measure boxes, masks or keypoints by COCO's or LVIS's metric."""
        evaluate = evaluate_lvis if self.federated else evaluate_coco
        figures = {}
        for kind in self.kinds:
            records = read_results(folder / self.FILE, self.annotations, kind)
            figures[PREFIXES[kind]] = evaluate(self.annotations, records, kind)
        return measured_of(figures)


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

    def measure(self, folder: Path) -> MeasuredFigures:
        """Measure boxes by COCO's metric, and surfaces by geodesic point similarity."""
        boxes = super().measure(folder)
        if self.geometry is None:
            return boxes
        records = read_results(folder / self.FILE, self.annotations, "bbox")
        figures = evaluate_densepose(self.annotations, records, read_surface(self.geometry))
        points = measured_of({"gps_": figures})
        return MeasuredFigures({**boxes.values, **points.values}, boxes.per_class)
