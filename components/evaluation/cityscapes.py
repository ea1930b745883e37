"""Cityscapes' metrics as its own scripts compute them: instance AP and AP50, and mIoU.

Predictions lie in a folder as the evaluation server takes them: for instances a text file an
image and a binary PNG an instance, for semantics a PNG of label ids an image.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.core.errors import DataError
from components.evaluation.figures import Figures, refuse
from components.evaluation.semantic import IGNORED, Confusion, Labels, read_label_map

CLASSES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"},
    **{19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"},
    **{24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
"""The evaluated classes by label id."""
THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the classes with instances."""
THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # as the scripts have them, rounding included
SMALLEST = 100  # pixels; smaller true instances are ignored
INSTANCE = 1000
"""A number of an instance map is this times its label, plus a count; below, it is a label: a group
that nobody told apart, or stuff."""
LABELS = 34
"""Labels in files, those that do not count included."""
ENDINGS = {"instances": "_gtFine_instanceIds.png", "labels": "_gtFine_labelIds.png"}
"""Of the files below gtFine that are measured on."""


@dataclass(frozen=True)
class Instance:
    """One predicted instance.

    Attributes:
        label: Its class as a label id, 24 (person) to 33 (bicycle).
        score: How certain it is.
        mask: Where it is, (H, W), at the image's size.
    """

    label: int
    score: float
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _True:
    identity: int
    pixels: int

    @property
    def counts(self) -> bool:
        """Whether it must be found: a single object, large enough."""
        return self.identity >= INSTANCE and self.pixels >= SMALLEST


@dataclass(frozen=True)
class _Predicted:
    score: float
    pixels: int
    void: int
    shared: dict[int, int]  # pixels, by true instance or group of the same class


@dataclass(frozen=True)
class _Scene:
    """The true and the predicted instances of one class in one image."""

    true: list[_True]
    predicted: list[_Predicted]


def write_instances(folder: Path, image: str, instances: Iterable[Instance]) -> None:
    """Write an image's instances: IMAGE_pred.txt, and a PNG for each.

    Args:
        folder: Where; all images may share it.
        image: CITY_SEQUENCE_FRAME.
        instances: Empty masks are left out: the scripts skip them.

    Raises:
        DataError: if a label id has no instances, or a score is not finite.
    """
    lines, faults = [], []
    for number, instance in enumerate(instances):
        if instance.label not in THINGS:
            faults.append(f"label id {instance.label} is not one of {THINGS} (ids, not train ids)")
        elif not np.isfinite(instance.score):
            faults.append(f"score {instance.score} is not a finite number")
        elif instance.mask.any():
            name = f"{image}_{number}_{instance.label}.png"
            Image.fromarray(instance.mask.astype(np.uint8) * 255).save(folder / name)
            lines.append(f"{name} {instance.label} {instance.score!r}\n")
    refuse(f"predictions for {image}", faults, "Map the model's classes to Cityscapes' label ids")
    (folder / f"{image}_pred.txt").write_text("".join(lines), "utf-8")


def read_instances(path: Path) -> list[Instance]:
    """Read an image's instances that `write_instances` or another code base wrote.

    Raises:
        DataError: if a line is malformed, or its mask cannot be read or lies elsewhere.
    """
    instances: dict[Path, Instance] = {}  # one a mask: the scripts keep a mask's last line
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            name, label, score = line.split(" ")
            chosen, certainty = int(float(label)), float(score)
        except ValueError:
            raise DataError(
                f"{path}: line {number} is not a mask's path, a label id and a score: {line!r}"
            ) from None
        file = (path.parent / name).resolve()
        if not file.is_relative_to(path.parent.resolve()):
            raise DataError(f"{path}: line {number}: mask {name} lies outside of the folder")
        if not 0 <= chosen < LABELS:
            raise DataError(f"{path}: line {number}: label id {chosen} is unknown (0 to 33)")
        instances[file] = Instance(chosen, certainty, read_label_map(file) != 0)
    return list(instances.values())


def evaluate_instances(truth: Path, predictions: Path) -> Figures:
    """Return AP and AP50 over instances.

    Groups and small instances are ignored: finding them is neither right nor wrong, and
    a prediction mostly on them or on void pixels is no mistake.

    Args:
        truth: A split's folder, gtFine/val, with CITY/*_gtFine_instanceIds.png.
        predictions: A folder with CITY_SEQUENCE_FRAME*.txt for each of its images, at any depth.

    Raises:
        DataError: if an image has no predictions or more than one file of them, or one is
            malformed.
    """
    scenes: dict[int, list[_Scene]] = {label: [] for label in THINGS}
    for path, file in _pairs(truth, predictions, "instances", "txt"):
        for label, scene in _match(read_label_map(path), read_instances(file), file).items():
            scenes[label].append(scene)
    by_class = {
        CLASSES[label]: np.array([_average_precision(many, t) for t in THRESHOLDS]) * 100
        for label, many in scenes.items()
        if any(true.counts for scene in many for true in scene.true)
    }
    if not by_class:
        return Figures({})
    table = np.stack(list(by_class.values()))
    return Figures(
        values={"AP": float(table.mean()), "AP50": float(table[:, 0].mean())},
        per_class={name: float(values.mean()) for name, values in by_class.items()},
    )


def evaluate_labels(truth: Path, predictions: Path) -> Figures:
    """Return mIoU over the 19 classes.

    Args:
        truth: A split's folder, gtFine/val, with CITY/*_gtFine_labelIds.png.
        predictions: A folder with CITY_SEQUENCE_FRAME*.png of label ids (not train ids) for
            each of its images, at any depth.

    Raises:
        DataError: if an image has no prediction or more than one, or it does not fit.
    """
    confusion = Confusion(tuple(CLASSES.values()))
    for path, file in _pairs(truth, predictions, "labels", "png"):
        predicted = read_label_map(file)
        if predicted.max() >= LABELS:
            raise DataError(f"{file}: label id {predicted.max()} is unknown (0 to 33)")
        confusion.add(to_train_ids(read_label_map(path)), to_train_ids(predicted), file.name)
    return confusion.figures()


def to_train_ids(labels: Labels) -> Labels:
    """Map label ids to train ids, 0 to 18 in the order of the ids; 255 is not evaluated."""
    table = np.full(256, IGNORED, np.uint8)
    table[list(CLASSES)] = np.arange(len(CLASSES))
    return table[labels]


def to_label_ids(train_ids: Labels) -> Labels:
    """Map train ids to label ids; what is no class becomes unlabeled (0)."""
    table = np.zeros(256, np.uint8)
    table[: len(CLASSES)] = list(CLASSES)
    return table[train_ids]


def _pairs(truth: Path, predictions: Path, what: str, kind: str) -> Iterator[tuple[Path, Path]]:
    """Return each image's true and predicted file."""
    paths = sorted(truth.glob(f"*/*{ENDINGS[what]}"))
    if not paths:
        raise DataError(f"{truth} has no CITY/*{ENDINGS[what]}: is it a split's folder in gtFine?")
    files = sorted(predictions.rglob(f"*.{kind}"))
    for path in paths:
        image = "_".join(path.name.split("_")[:3])
        matching = [file for file in files if file.name.startswith(image)]
        if len(matching) != 1:
            raise DataError(
                f"{predictions} has {len(matching)} files {image}*.{kind}; each image of {truth} "
                "needs one, with no line in it if nothing was found"
            )
        yield path, matching[0]


def _match(truth: Labels, instances: Sequence[Instance], file: Path) -> dict[int, _Scene]:
    """Count the pixels that predicted and true instances share, by class."""
    labels, pixels = np.unique(truth, return_counts=True)
    sizes = dict(zip(labels.tolist(), pixels.tolist(), strict=True))
    scenes = {
        label: _Scene(
            [
                _True(identity, size)
                for identity, size in sizes.items()
                if _label(identity) == label
            ],
            [],
        )
        for label in THINGS
    }
    for instance in instances:
        if instance.mask.shape != truth.shape:
            raise DataError(
                f"{file}: a mask is {instance.mask.shape}, the image {truth.shape} (height, width)"
            )
        under, counts = np.unique(truth[instance.mask], return_counts=True)
        if instance.label not in scenes or not under.size:
            continue
        shared = dict(zip(under.tolist(), counts.tolist(), strict=True))
        scenes[instance.label].predicted.append(
            _Predicted(
                score=instance.score,
                pixels=int(counts.sum()),
                void=sum(
                    n
                    for identity, n in shared.items()
                    if identity < INSTANCE and identity not in CLASSES
                ),
                shared={
                    identity: n
                    for identity, n in shared.items()
                    if _label(identity) == instance.label
                },
            )
        )
    return scenes


def _label(identity: int) -> int:
    return identity if identity < INSTANCE else identity // INSTANCE


def _average_precision(scenes: Sequence[_Scene], threshold: float) -> float:
    """Return a class's average precision at one overlap; it has something to find."""
    right: list[float] = []  # scores of found instances
    wrong: list[float] = []  # scores of mistakes
    missed = 0
    for scene in scenes:
        for true in scene.true:
            if true.counts:
                scores = [
                    predicted.score
                    for predicted in scene.predicted
                    if _iou(predicted, true) > threshold
                ]
                right += sorted(scores)[-1:]
                wrong += sorted(scores)[:-1]
                missed += not scores
        wrong += [
            predicted.score
            for predicted in scene.predicted
            if _mistaken(predicted, scene, threshold)
        ]
    return _area(np.array(right), np.array(wrong), missed)


def _iou(predicted: _Predicted, true: _True) -> float:
    shared = predicted.shared.get(true.identity, 0)
    return shared / (true.pixels + predicted.pixels - shared)


def _mistaken(predicted: _Predicted, scene: _Scene, threshold: float) -> bool:
    """Say whether a prediction is on nothing, true or ignored."""
    if any(_iou(predicted, true) > threshold for true in scene.true):
        return False
    ignored = predicted.void
    for true in scene.true:
        shared = predicted.shared.get(true.identity, 0)
        # A small group counts twice, as in the scripts.
        ignored += shared * ((true.identity < INSTANCE) + (true.pixels < SMALLEST))
    return ignored / predicted.pixels <= threshold


def _area(right: npt.NDArray[np.float64], wrong: npt.NDArray[np.float64], missed: int) -> float:
    """Return the area under precision over recall, by steps centred on each distinct score."""
    if not right.size:
        return 0.0
    scores = np.unique(np.concatenate((right, wrong)))
    hits = (right >= scores[:, None]).sum(1)
    mistakes = (wrong >= scores[:, None]).sum(1)
    precision = np.append(hits / (hits + mistakes), 1.0)
    recall = np.append(hits / (right.size + missed), 0.0)
    padded = np.concatenate((recall[:1], recall, [0.0]))
    return float(precision @ ((padded[:-2] - padded[2:]) / 2))
