"""DensePose's average precision by geodesic point similarity (GPS).

A found person is as similar to a true one as the points annotated on it are near, along the
body, to where the prediction puts them: the mean of exp(-d² / 2σ²), σ by body part. The rules
of matching, oddities included, are those of detectron2's DensePose project, which measured the
paper's kind of numbers.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hotcoco.primitives import bbox_iou
from PIL import Image

from components.evaluation.annotations import Record, check_annotations
from components.evaluation.coco import average, defined
from components.evaluation.figures import Figures, refuse
from components.evaluation.results import check_results
from components.evaluation.surface import Array, Indices, Surface

DETECTIONS = 20  # an image's
THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"": (0, 1e5**2), "m": (32**2, 96**2), "l": (96**2, 1e5**2)}
SAME_PERSON = 0.8  # IoU of boxes from which a find is of a person without enough points
_RECALLS = np.linspace(0, 1, 101)
_COARSE = np.array([0, *(1, 1), *(2, 2), *(3, 3), *(4,) * 4, *(5,) * 4, *(6,) * 4, *(7,) * 4, 8, 8])
_SIGMAS = np.array([0, 0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150])[_COARSE]  # metres
_POINTS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
_SCALE = 255.0  # points lie in a box of 0 to 255; U and V are stored as bytes
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


def encode_iuv(iuv: Bytes) -> Record:
    """Return the fields of a result for parts and coordinates.

    Args:
        iuv: Part (0 is background), U and V times 255, in each pixel of the box, (3, H, W),
            H and W the whole pixels of its height and width, at least 1.
    """
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(iuv.transpose(1, 2, 0))).save(file, format="PNG")
    return {"uv_shape": list(iuv.shape), "uv_data": base64.b64encode(file.getvalue()).decode()}


def decode_iuv(result: Record) -> Bytes:
    """Return parts and coordinates of a result, (3, H, W)."""
    with Image.open(io.BytesIO(base64.b64decode(result["uv_data"]))) as image:
        return np.asarray(image).transpose(2, 0, 1)


def evaluate_densepose(annotations: Record, results: Sequence[Record], surface: Surface) -> Figures:
    """Return AP, AP50, AP75, APm and APl by GPS.

    Args:
        annotations: COCO's layout with DensePose's points (`dp_x`, ...) on some persons; the
            others are neither found nor missed.
        results: COCO's result format with `bbox`, and the fields of `encode_iuv`, which is the
            form of the DensePose challenge.
        surface: As `read_surface` reads it.

    Raises:
        DataError: if the annotations or the predictions cannot be evaluated as they are.
    """
    check_annotations(annotations, "bbox")
    check_results(results, annotations, "bbox")
    refuse("the predictions", list(_faults(results)), "encode_iuv writes the fields of a result")
    true, predicted = _by_image(annotations["annotations"]), _by_image(results)
    images = [
        _Persons(true[key], predicted[key], surface)
        for key in sorted(true.keys() | predicted.keys())
    ]
    precisions = {name: _precision(images, area) for name, area in AREAS.items()}
    return Figures(
        defined(
            {
                "AP": average(precisions[""]),
                "AP50": average(precisions[""][0]),
                "AP75": average(precisions[""][5]),
            }
            | {f"AP{name}": average(precisions[name]) for name in ("m", "l")}
        )
    )


class _Persons:
    """The true and the predicted persons of an image, and how similar they are."""

    def __init__(
        self, true: Sequence[Record], predicted: Sequence[Record], surface: Surface
    ) -> None:
        order = np.argsort([-result["score"] for result in predicted], kind="stable")[:DETECTIONS]
        chosen = [predicted[index] for index in order]
        self.category = (*true, *predicted)[0]["category_id"]
        self.scores = np.array([result["score"] for result in chosen])
        self.predicted_areas = np.array(
            [result["bbox"][2] * result["bbox"][3] for result in chosen]
        )
        self.true_areas = np.array([person["area"] for person in true])
        self.crowd = np.array([bool(person.get("iscrowd", 0)) for person in true], bool)
        self.unmarked = np.array(["dp_x" not in person for person in true], bool)
        self.similarity = np.zeros((len(chosen), len(true)))
        self.overlap = np.zeros_like(self.similarity)
        if not self.similarity.size:
            return
        boxes = [np.array([record["bbox"] for record in many], float) for many in (chosen, true)]
        self.overlap = bbox_iou(boxes[0], boxes[1], self.crowd)
        charts = [decode_iuv(result) for result in chosen]
        for column, person in enumerate(true):
            if not self.unmarked[column]:
                points = _Points(person, surface)
                self.similarity[:, column] = [
                    points.similarity(result["bbox"], iuv)
                    for result, iuv in zip(chosen, charts, strict=True)
                ]

    def match(self, area: tuple[float, float]) -> tuple[Flags, Flags, int]:
        """Match within an area range.

        Returns:
            By threshold and found person, (10, D): whether it has a match, and whether it does
            not count. And how many persons there are to find.
        """
        ignored = self.unmarked | (self.true_areas < area[0]) | (self.true_areas > area[1])
        order = np.argsort(ignored, kind="stable")  # those that count first
        matching = _Matching(
            self.similarity[:, order], self.overlap[:, order], ignored[order], self.crowd[order]
        )
        outside = (self.predicted_areas < area[0]) | (self.predicted_areas > area[1])
        return (
            matching.matched,
            matching.neutral | (~matching.matched & outside),
            int((~ignored).sum()),
        )


class _Points:
    """The points that annotators put on a person."""

    def __init__(self, person: Record, surface: Surface) -> None:
        x, y, width, height = person["bbox"]
        self.surface = surface
        parts = np.array(person["dp_I"]).astype(np.int64)
        uv = np.stack((np.array(person["dp_U"], float), np.array(person["dp_V"], float)), 1)
        self.x = np.array(person["dp_x"], float) * width / _SCALE
        self.y = np.array(person["dp_y"], float) * height / _SCALE
        self.corner = (x, y)
        self.vertices = surface.nearest(parts, uv.reshape(-1, 2))
        self.marked = self.vertices >= 0
        self.sigmas = _SIGMAS[parts[self.marked]]

    def similarity(self, box: Sequence[float], iuv: Bytes) -> float:
        """Return the GPS of a prediction in a box."""
        across = (self.x + self.corner[0] - box[0]).astype(int)
        down = (self.y + self.corner[1] - box[1]).astype(int)
        inside = (across >= 0) & (across < int(box[2])) & (down >= 0) & (down < int(box[3]))
        if not inside.any() or not self.marked.any():
            return 0.0
        values = iuv[:, np.where(inside, down, 0), np.where(inside, across, 0)]
        parts: Indices = np.where(inside, values[0], 0).astype(np.int64)
        nearest = self.surface.nearest(parts, values[1:].T / _SCALE)
        metres = self.surface.distance(self.vertices[self.marked], nearest[self.marked])
        return float(np.exp(-(metres**2) / (2 * self.sigmas**2)).mean())


class _Matching:
    """COCO's greedy matching, and DensePose's second look at boxes.

    Attributes:
        matched: Whether a found person has a match, (10, D).
        neutral: Whether it does not count, (10, D).
    """

    def __init__(self, similarity: Array, overlap: Array, ignored: Flags, crowd: Flags) -> None:
        detections, persons = similarity.shape
        self.similarity, self.overlap = similarity, overlap
        self.ignored, self.crowd = ignored, crowd
        self.matched = np.zeros((len(THRESHOLDS), detections), bool)
        self.neutral = np.full((len(THRESHOLDS), detections), bool(ignored.all()))
        self.taken = np.zeros((len(THRESHOLDS), persons), bool)
        for level, threshold in enumerate(THRESHOLDS):
            for detection in range(detections):
                self._by_points(level, detection, min(threshold, 1 - 1e-10))
        for detection in range(detections):
            self._by_box(detection)

    def _by_points(self, level: int, detection: int, best: float) -> None:
        """Match with the most similar person; one that counts goes first."""
        chosen = -1
        for index, similarity in enumerate(self.similarity[detection]):
            if self.taken[level, index] and not self.crowd[index]:
                continue
            if chosen > -1 and not self.ignored[chosen] and self.ignored[index]:
                break
            if similarity >= best and similarity > 0:
                best, chosen = similarity, index
        if chosen > -1:
            self.neutral[level, detection] = self.ignored[chosen]
            self.matched[level, detection] = self.taken[level, chosen] = True

    def _by_box(self, detection: int) -> None:
        """Let what is no match at the last threshold share the fate of the person in its box."""
        if self.matched[-1, detection]:
            return
        free = ~self.taken[-1] | self.crowd
        candidates = np.flatnonzero(free & (self.overlap[detection] >= SAME_PERSON))
        if candidates.size:
            overlaps = self.overlap[detection][candidates]
            chosen = candidates[np.flatnonzero(overlaps == overlaps.max())[-1]]
            self.neutral[:, detection] = self.ignored[chosen]
            if self.ignored[chosen]:
                self.matched[-1, detection] = self.taken[-1, chosen] = True


def _precision(images: Sequence[_Persons], area: tuple[float, float]) -> Array:
    """Return precision by threshold, recall and class, (10, 101, C)."""
    of_class: Mapping[int, list[_Persons]] = defaultdict(list)
    for persons in images:
        of_class[persons.category].append(persons)
    curves = [_curve(many, area) for many in of_class.values()]
    return np.stack(curves, -1) if curves else np.empty((len(THRESHOLDS), len(_RECALLS), 0))


def _curve(images: Sequence[_Persons], area: tuple[float, float]) -> Array:
    """Return a class's precision by threshold and recall, (10, 101); -1 without truth."""
    matches = [persons.match(area) for persons in images]
    total = sum(number for _, _, number in matches)
    if not total:
        return np.full((len(THRESHOLDS), len(_RECALLS)), -1.0)
    order = np.argsort(-np.concatenate([persons.scores for persons in images]), kind="stable")
    matched = np.concatenate([flags for flags, _, _ in matches], axis=1)[:, order]
    neutral = np.concatenate([flags for _, flags, _ in matches], axis=1)[:, order]
    right = np.cumsum(matched & ~neutral, axis=1, dtype=float)
    wrong = np.cumsum(~matched & ~neutral, axis=1, dtype=float)
    precision = right / (right + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(best, ((0, 0), (0, 1)))
    places = [np.searchsorted(recall, _RECALLS) for recall in right / total]
    return np.take_along_axis(padded, np.array(places), axis=1)


def _by_image(records: Sequence[Record]) -> dict[tuple[int, int], list[Record]]:
    """Group by class and image."""
    images: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in records:
        images[record["category_id"], record["image_id"]].append(record)
    return images


def _faults(results: Sequence[Record]) -> Iterator[str]:
    for position, result in enumerate(results):
        _, _, width, height = result["bbox"]
        expected = [3, max(int(height), 1), max(int(width), 1)]
        try:
            shape: Any = list(decode_iuv(result).shape)
        except (KeyError, TypeError, ValueError, OSError) as error:
            yield f"prediction {position} has no parts and coordinates ({error!r})"
            continue
        if shape != expected:
            yield f"prediction {position} has coordinates of {shape}, its box needs {expected}"
