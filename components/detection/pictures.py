"""A sheet of validation images: what is there, beside what was found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from components.datasets.instances import Instances, InstanceSet
from components.datasets.semantic import palette
from components.vision.decoding import Pixels, read_image
from components.vision.pictures import PICTURES, Colour, drawing, write_sheet
from components.vision.prediction import Prediction

IN_CODE_DIGEST = False  # it shows results to people

SHEET = f"{PICTURES}/predictions.jpg"
SHOWN_SCORE = 0.5  # what is less certain would only cover the picture
_SIDE = 640  # longer side at least, pixels: lines on a smaller image would cover it
_CLASSES = 24  # of the legend, at most


def draw_predictions(
    folder: Path,
    images: InstanceSet,
    predictions: Mapping[int, Prediction],
) -> None:
    """Write `pictures/predictions.jpg` into a metrics artifact; nothing without predictions."""
    with drawing(folder / SHEET):
        _draw_predictions(folder, images, predictions)


def _draw_predictions(
    folder: Path,
    images: InstanceSet,
    predictions: Mapping[int, Prediction],
) -> None:
    rows, labels = [], set()
    for index, prediction in sorted(predictions.items()):
        instances = images[index]
        # By falling score: where nothing is certain, the best guess.
        certain = list(range(max(1, int((prediction.scores >= SHOWN_SCORE).sum()))))
        certain = certain[: len(prediction)]
        labels |= {*instances.labels.tolist(), *prediction.labels[certain].tolist()}
        canvas = _Canvas(read_image(images.path(index)), images.categories.skeleton)
        rows.append([canvas.draw(_true(instances)), canvas.draw(_predicted(prediction, certain))])
    if rows:
        names = images.categories.names
        legend = {names[label]: _colour(label) for label in sorted(labels)[:_CLASSES]}
        titles = ["ground truth", f"predicted (score over {SHOWN_SCORE:g}, or the best)"]
        write_sheet(folder / SHEET, titles, rows, legend)


class _Canvas:
    """An image, enlarged if it is small, to draw upon again and again."""

    def __init__(self, pixels: Pixels, skeleton: Sequence[tuple[int, int]]) -> None:
        height, width = pixels.shape[:2]
        self.scale = max(1, round(_SIDE / max(height, width)))
        size = (width * self.scale, height * self.scale)
        self.pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        self.skeleton = skeleton

    def draw(self, shown: Sequence[dict[str, Any]]) -> Pixels:
        """Return the image with instances drawn on it."""
        canvas: Pixels = self.pixels.copy()
        for instance in shown:
            colour = _colour(instance["label"])
            if instance.get("mask") is not None:
                self._fill(canvas, instance["mask"], colour)
            if instance.get("parts") is not None:
                self._fill_parts(canvas, instance["box"], instance["parts"])
            left, top, right, bottom = (
                (np.asarray(instance["box"]) * self.scale).round().astype(int)
            )
            cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, 3)
            if instance.get("keypoints") is not None:
                self._join(canvas, instance["keypoints"], colour)
        return canvas

    def _fill(self, canvas: Pixels, mask: npt.NDArray[np.bool_], colour: Colour) -> None:
        size = (canvas.shape[1], canvas.shape[0])
        inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        canvas[inside] = canvas[inside] // 2 + np.array(colour, np.uint8) // 2

    def _fill_parts(self, canvas: Pixels, box: Sequence[float], parts: npt.NDArray[Any]) -> None:
        """Colour the parts of a surface, given in the box."""
        left, top, right, bottom = (np.asarray(box) * self.scale).round().astype(int)
        if min(right - left, bottom - top) < 1:
            return
        size = (int(right - left), int(bottom - top))
        stretched = cv2.resize(parts.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        area = canvas[max(top, 0) : bottom, max(left, 0) : right]
        stretched = stretched[max(-top, 0) :, max(-left, 0) :][: area.shape[0], : area.shape[1]]
        inside = stretched > 0
        area[inside] = area[inside] // 3 + palette()[stretched[inside]] // 3 * 2

    def _join(self, canvas: Pixels, keypoints: npt.NDArray[Any], colour: Colour) -> None:
        """Draw the labelled keypoints and the lines between them."""
        places = (keypoints[:, :2] * self.scale).round().astype(int).tolist()
        seen = keypoints[:, 2] > 0
        for start, end in self.skeleton:
            if seen[start] and seen[end]:
                cv2.line(canvas, places[start], places[end], colour, 2, cv2.LINE_AA)
        for place in (place for place, here in zip(places, seen, strict=True) if here):
            cv2.circle(canvas, place, 4, (255, 255, 255), -1, cv2.LINE_AA)


def _colour(label: int) -> Colour:
    red, green, blue = palette()[label + 1].tolist()
    # Halfway to white: dark lines do not show on dark images.
    return (128 + red // 2, 128 + green // 2, 128 + blue // 2)


def _true(instances: Instances) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for place in np.flatnonzero(~instances.crowd):
        instance: dict[str, Any] = {
            "label": int(instances.labels[place]),
            "box": instances.boxes[place],
        }
        if instances.surfaces:
            surface = instances.surfaces[place]
            instance["parts"] = None if surface is None else surface.parts()
        elif instances.keypoints is not None:
            instance["keypoints"] = instances.keypoints[place]
        elif instances.masks:
            instance["mask"] = instances.masks[place].decode()
        shown.append(instance)
    return shown


def _predicted(prediction: Prediction, places: Sequence[int]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for place in places:
        instance: dict[str, Any] = {
            "label": int(prediction.labels[place]),
            "box": prediction.boxes[place].numpy(),
        }
        if prediction.surfaces is not None:
            instance["parts"] = prediction.surfaces[place][0].numpy()
        if prediction.keypoints is not None:
            instance["keypoints"] = prediction.keypoints[place].numpy()
        if prediction.masks is not None:
            instance["mask"] = prediction.masks[place].numpy()
        shown.append(instance)
    return shown
