"""PASCAL VOC's average precision, over predictions in the devkit's result files.

The paper's AP, AP50 and AP75 (Table 2) are detectron2's on VOC 2007: the 11-point metric at
each overlap, AP its mean over .50:.05:.95. The area under the curve, VOC's metric since 2010,
stands beside them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.evaluation.figures import Figures, refuse

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
_RECALLS = np.arange(0.0, 1.1, 0.1)  # as detectron2 has them: 0.3 is a hair above 3 of 10
_WAY_OUT = "Predictions must be of the same split and classes as the annotations"
Array = npt.NDArray[np.float64]


class Detection(NamedTuple):
    """One predicted box.

    Attributes:
        image: The image's name, without extension.
        category: The class's name.
        score: How certain it is.
        box: Left, top, right, bottom in pixels, 0 at the image's upper left corner.
    """

    image: str
    category: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """The objects of one image.

    Attributes:
        names: Their classes.
        boxes: Left, top, right, bottom, counted from 1 and inclusive as in the files, (N, 4).
        difficult: Whether neither finding nor missing it counts, (N,).
    """

    names: tuple[str, ...]
    boxes: Array
    difficult: npt.NDArray[np.bool_]

    def of(self, name: str) -> "Truth":
        """Return the objects of one class."""
        chosen = [index for index, category in enumerate(self.names) if category == name]
        return Truth((name,) * len(chosen), self.boxes[chosen], self.difficult[chosen])


def result_file(split: str, name: str) -> str:
    """Return what the devkit calls the detections of a class, trained on any data (comp4)."""
    return f"comp4_det_{split}_{name}.txt"


def write_results(
    folder: Path,
    split: str,
    detections: Iterable[Detection],
    images: Iterable[str],
    classes: Sequence[str] = CLASSES,
) -> None:
    """Write one result file a class, as the devkit and the evaluation server take them.

    Coordinates count from 1 there. Six decimals are kept, as the devkit writes them; detectron2
    keeps three of a score and one of a coordinate, which moves its AP in the second decimal.

    Raises:
        DataError: if a detection is of an unknown image or class, or its box has no area;
            nothing is written.
    """
    lines: dict[str, list[str]] = {name: [] for name in classes}
    known, faults = set(images), []
    for detection in detections:
        fault = _fault(detection, known, lines)
        if fault:
            faults.append(fault)
            continue
        left, top, right, bottom = detection.box
        corners = " ".join(f"{value:.6f}" for value in (left + 1, top + 1, right, bottom))
        lines[detection.category].append(f"{detection.image} {detection.score:.6f} {corners}\n")
    refuse(folder, faults, _WAY_OUT)
    for name, of_class in lines.items():
        (folder / result_file(split, name)).write_text("".join(of_class), "utf-8")


def evaluate_voc(
    truth: Mapping[str, Truth], folder: Path, split: str, classes: Sequence[str] = CLASSES
) -> Figures:
    """Return AP, AP50, AP75 by the 11-point metric, and AP_area, AP50_area, AP75_area.

    A detection belongs to the object that it overlaps most; the first to claim an object by
    more than the threshold finds it. Difficult objects count neither as found nor as missed.
    A class without any other object has no AP and is left out of the means (detectron2 counts
    it as 0; VOC's own splits have every class).

    Args:
        truth: By image name.
        folder: Result files of all classes.
        split: As in their names.
        classes: Names of the classes.

    Raises:
        DataError: if a result file is missing or malformed, or names an unknown image.
    """
    points, areas = {}, {}
    for name in classes:
        scored = _read_results(folder / result_file(split, name), truth)
        objects = {image: true.of(name) for image, true in truth.items()}
        if any((~true.difficult).any() for true in objects.values()):
            curves = _curves(scored, objects)
            points[name] = [eleven_points(*curve) * 100 for curve in curves]
            areas[name] = [area_under(*curve) * 100 for curve in curves]
    return Figures(
        values=_means(points, "") | _means(areas, "_area"),
        per_class={name: float(np.mean(values)) for name, values in points.items()},
    )


def eleven_points(recall: Array, precision: Array) -> float:
    """Return the mean over recalls 0, .1, ..., 1 of the best precision from there on."""
    best = (precision[recall >= threshold] for threshold in _RECALLS)
    return float(sum(values.max() / len(_RECALLS) for values in best if values.size))


def area_under(recall: Array, precision: Array) -> float:
    """Return the area under the curve whose precision never falls with falling recall."""
    recalls = np.concatenate(([0.0], recall, [1.0]))
    precisions = np.concatenate(([0.0], precision, [0.0]))
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    steps = np.flatnonzero(np.diff(recalls))
    return float(((recalls[steps + 1] - recalls[steps]) * envelope[steps + 1]).sum())


def _means(by_class: Mapping[str, Sequence[float]], suffix: str) -> dict[str, float]:
    if not by_class:
        return {}
    at = np.mean(list(by_class.values()), axis=0)
    values = {
        "AP": at.mean(),
        "AP50": at[THRESHOLDS.index(0.5)],
        "AP75": at[THRESHOLDS.index(0.75)],
    }
    return {name + suffix: float(value) for name, value in values.items()}


def _curves(
    scored: Sequence[tuple[str, float, Array]], objects: Mapping[str, Truth]
) -> list[tuple[Array, Array]]:
    """Return recall and precision along falling scores, for each threshold."""
    order = np.argsort([-score for _, score, _ in scored], kind="stable")
    first, count = {}, 0  # objects of all images in one row
    for image, true in objects.items():
        first[image] = count
        count += len(true.boxes)
    difficult = np.concatenate([true.difficult for true in objects.values()])
    overlap, claimed = np.full(len(scored), -np.inf), np.zeros(len(scored), np.int64)
    for place, index in enumerate(order):
        image, _, box = scored[index]
        if len(objects[image].boxes):
            ious = _overlaps(box, objects[image].boxes)
            overlap[place], claimed[place] = ious.max(), first[image] + ious.argmax()
    return [_curve(overlap > threshold, claimed, difficult) for threshold in THRESHOLDS]


def _curve(
    claims: npt.NDArray[np.bool_], claimed: npt.NDArray[np.int64], difficult: npt.NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Return recall and precision along falling scores.

    Args:
        claims: Whether a detection overlaps its object enough, (D,), by falling score.
        claimed: That object, (D,).
        difficult: By object.
    """
    found = np.zeros(len(claims), bool)
    claiming = np.flatnonzero(claims)
    _, earliest = np.unique(claimed[claiming], return_index=True)
    found[claiming[earliest]] = True
    neutral = claims & difficult[claimed] if len(claims) else claims
    right = np.cumsum(found & ~neutral, dtype=np.float64)
    wrong = np.cumsum(~found & ~neutral, dtype=np.float64)
    return right / (~difficult).sum(), right / np.maximum(right + wrong, np.finfo(np.float64).eps)


def _overlaps(box: Array, boxes: Array) -> Array:
    """Return the IoU of a box with boxes, (N,); a pixel is one wide, both ends are inside."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    both = np.maximum(high - low + 1.0, 0.0).prod(axis=1)
    sizes = (boxes[:, 2:] - boxes[:, :2] + 1.0).prod(axis=1)
    overlaps: Array = both / ((box[2:] - box[:2] + 1.0).prod() + sizes - both)
    return overlaps


def _read_results(path: Path, truth: Mapping[str, Truth]) -> list[tuple[str, float, Array]]:
    """Return image, score and box of each line."""
    scored: list[tuple[str, float, Array]] = []
    faults = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            image, score, *corners = line.split()
            box = np.array([float(value) for value in corners]).reshape(4)
            scored.append((image, float(score), box))
        except ValueError:
            faults.append(f"line {number} is not an image, a score and four coordinates: {line!r}")
            continue
        if image not in truth:
            faults.append(f"line {number}: image {image!r} is unknown")
        elif not (np.isfinite(box).all() and math.isfinite(scored[-1][1])):
            faults.append(f"line {number}: a number is not finite")
    refuse(path, faults, _WAY_OUT)
    return scored


def _fault(detection: Detection, images: set[str], classes: Mapping[str, object]) -> str:
    left, top, right, bottom = detection.box
    if detection.image not in images:
        return f"image {detection.image!r} is unknown"
    if detection.category not in classes:
        return f"class {detection.category!r} is unknown"
    if not (right > left and bottom > top):
        return f"box {list(detection.box)} has no area (a box is left, top, right, bottom)"
    if not math.isfinite(detection.score):
        return f"score {detection.score} is not a finite number"
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
