"""Renders a picture: several digits, some partly hidden, with all that can be told of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from components.rendering.config import PicturesConfig
from components.rendering.scenes import DIGIT_SIDE, Ink, Matrix, draw, placement, random_turn
from components.rendering.source import Digits
from components.rendering.surface import locate
from components.vision import rle
from components.vision.masks import Polygon
from components.vision.rle import Pixels

STYLES = ("solid", "hollow", "striped")
KEYPOINTS = (
    "centre",
    "top",
    *(f"right_{number}" for number in range(1, 8)),
    "bottom",
    *(f"left_{number}" for number in range(7, 0, -1)),
)
"""The ink's middle, and its outermost point in each of 16 directions, clockwise."""
SKELETON = [[number, number % 16 + 2 if number > 16 else number + 1] for number in range(2, 18)]
"""Pairs of keypoints, counted from 1: the ring."""

_INK = 0.3  # share from which a pixel belongs to a digit
_FINE = 8  # steps of a keypoint within a digit's pixel
_TRACE = 4  # steps of an outline within a picture's pixel
_ROUGHNESS = 2  # steps that an outline may be off
_HIDDEN = 0.25  # most of a digit that others may hide
_LEAST_AREA = 12  # pixels of an instance
_TRIES = 12
_TINY = (0.14, 0.2)  # size of a crowd's digits, over the shorter side
_CROWD = (5, 9)


class Pick(NamedTuple):
    """A digit for a picture."""

    which: int
    style: int = 0


@dataclass(frozen=True)
class Thing:
    """A digit in a picture, or a crowd of them.

    Attributes:
        label: What it shows, 0 to 9.
        style: Index in `STYLES`.
        source: Its position in scikit-learn's set; -1 of a crowd.
        crowd: Whether it is a crowd.
        outline: Its whole silhouette, holes filled, (H, W).
        mask: What is seen of it, (H, W); equal to its polygons, except for a crowd.
        polygons: Corners (x, y) of each piece, pixels from the top left corner; none for a crowd.
        keypoints: x, y (pixel numbers) and visibility, (17, 3), int64; zeros for a crowd.
        to_sheet: The map from pixels to the unit sheet of its surface, (2, 3).
    """

    label: int
    style: int
    source: int
    crowd: bool
    outline: Pixels
    mask: Pixels
    polygons: tuple[Polygon, ...]
    keypoints: npt.NDArray[np.int64]
    to_sheet: Matrix

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, pixels."""
        if self.crowd:
            left, top, width, height = cv2.boundingRect(self.mask.astype(np.uint8))
            return float(left), float(top), float(left + width), float(top + height)
        corners = np.concatenate(self.polygons)
        left, top = corners.min(axis=0).tolist()
        right, bottom = corners.max(axis=0).tolist()
        return left, top, right, bottom

    @property
    def area(self) -> int:
        """Pixels that are seen."""
        return int(self.mask.sum())

    @property
    def seen(self) -> float:
        """Share that is not hidden."""
        return float((self.mask & self.outline).sum() / self.outline.sum())

    def surface(
        self, points: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return part, U and V of points (x, y), pixels from the top left corner, (N, 2)."""
        return locate(points @ self.to_sheet[:, :2].T + self.to_sheet[:, 2])


@dataclass(frozen=True)
class Picture:
    """Pixels and what is in them.

    Attributes:
        pixels: RGB, (H, W, 3).
        things: From the hindmost to the foremost.
    """

    pixels: npt.NDArray[np.uint8]
    things: tuple[Thing, ...]

    def borders(self) -> Pixels:
        """Return the outermost pixels of every instance, (H, W)."""
        borders = np.zeros(self.pixels.shape[:2], np.bool_)
        for thing in self.things:
            inner = np.pad(thing.mask, 1)
            inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
            borders |= thing.mask & ~inner
        return borders


@dataclass
class _Placed:
    """A digit that found its place."""

    pick: Pick
    place: Matrix
    ink: Ink
    outline: Pixels


def render_picture(
    config: PicturesConfig,
    digits: Digits,
    picks: Sequence[Pick],
    light: Ink,
    *,
    generator: np.random.Generator,
    crowd: int | None = None,
) -> Picture:
    """Render digits on a ground, each in front of those before.

    Args:
        config: Sizes.
        digits: Where the picks are from.
        picks: Digits; one that finds no place is left out.
        light: The ground, (H, W); it is drawn upon.
        generator: Of everything that varies.
        crowd: A digit to show as a crowd behind all others, or None.
    """
    shape = (light.shape[0], light.shape[1])
    placed: list[_Placed] = []
    if crowd is not None:
        placed += _place_crowd(digits, crowd, shape, generator)
    tiny = len(placed)
    for pick in picks:
        digit = _place(
            digits, pick, config.digit_size, shape, neighbours=placed[tiny:], generator=generator
        )
        if digit is not None:
            placed.append(digit)
    for digit in placed:
        light += _stroke(digit) * (np.float32(generator.uniform(170, 235)) - light)
    light += generator.normal(0, 3, light.shape).astype(np.float32)
    tint = generator.uniform(0.94, 1.06, 3).astype(np.float32)
    pixels = np.clip(light[..., None] * tint, 0, 255).astype(np.uint8)
    return Picture(pixels, tuple(_things(digits, placed, tiny)))


def trace(mask: Pixels) -> tuple[Polygon, ...]:
    """Return the outlines of a mask's pieces, simplified, holes left out; tiny ones too."""
    large = cv2.resize(
        mask.astype(np.uint8), None, fx=_TRACE, fy=_TRACE, interpolation=cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = (cv2.approxPolyDP(contour, _ROUGHNESS, closed=True)[:, 0] for contour in contours)
    return tuple(
        ((outline + 0.5) / _TRACE).round(2)
        for outline in outlines
        if len(outline) >= 3 and cv2.contourArea(outline) >= _LEAST_AREA * _TRACE**2
    )


def _place(
    digits: Digits,
    pick: Pick,
    size: tuple[float, float],
    shape: tuple[int, int],
    *,
    neighbours: Sequence[_Placed],
    generator: np.random.Generator,
) -> _Placed | None:
    """Put a digit where it hides no other too much, wholly inside; None if there is no place."""
    scale = generator.uniform(*size) * min(shape) / DIGIT_SIDE
    matrix = scale * random_turn(generator)
    half = scale * DIGIT_SIDE / 2
    for _ in range(_TRIES):
        centre = np.array([generator.uniform(half, side - half) for side in shape[::-1]])
        place = placement(matrix, centre)
        ink = draw(digits.images[pick.which], place, (shape[1], shape[0]))
        outline = _silhouette(ink)
        covers = max(
            (
                (outline & neighbour.outline).sum() / neighbour.outline.sum()
                for neighbour in neighbours
            ),
            default=0,
        )
        if covers <= _HIDDEN and outline.sum() > _LEAST_AREA:
            return _Placed(pick, place, ink, outline)
    return None


def _place_crowd(
    digits: Digits, label: int, shape: tuple[int, int], generator: np.random.Generator
) -> list[_Placed]:
    """Put tiny digits of one kind close together."""
    corner = np.array([generator.uniform(0.1, 0.45) * side for side in shape[::-1]])
    crowd = []
    for _ in range(int(generator.integers(*_CROWD))):
        which = int(generator.choice(digits.of_class(label)))
        scale = generator.uniform(*_TINY) * min(shape) / DIGIT_SIDE
        centre = corner + generator.uniform(0.05, 0.4, 2) * min(shape)
        place = placement(scale * random_turn(generator), centre)
        ink = draw(digits.images[which], place, (shape[1], shape[0]))
        crowd.append(_Placed(Pick(which), place, ink, _silhouette(ink)))
    return crowd


def _silhouette(ink: Ink) -> Pixels:
    """Return a digit's pixels and those that it encloses."""
    thick = cv2.dilate((ink > _INK).astype(np.uint8), np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(thick, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled: Pixels = cv2.drawContours(thick, contours, -1, 1, cv2.FILLED) > 0
    return filled


def _stroke(digit: _Placed) -> Ink:
    """Return the ink of a digit in its style."""
    match STYLES[digit.pick.style]:
        case "hollow":
            inner = cv2.erode(digit.ink, np.ones((3, 3), np.uint8))
            return np.asarray(digit.ink * (1 - 0.9 * inner), np.float32)
        case "striped":
            rows = np.arange(len(digit.ink), dtype=np.float32)[:, None]
            return np.asarray(digit.ink * (0.3 + 0.7 * (rows // 2 % 2)), np.float32)
    return digit.ink


def _things(digits: Digits, placed: Sequence[_Placed], tiny: int) -> list[Thing]:
    """Return what is seen of each digit, from the hindmost; hidden ones are left out."""
    shape = placed[0].outline.shape if placed else (0, 0)
    covered = np.zeros(shape, np.bool_)
    things = []
    for digit in reversed(placed[tiny:]):
        polygons = trace(digit.outline & ~covered)
        if polygons:
            things.append(_thing(digits, digit, polygons, covered))
        covered = covered | digit.outline
    if tiny:
        outline = np.logical_or.reduce([digit.outline for digit in placed[:tiny]])
        crowd = outline & ~covered
        if crowd.sum() >= _LEAST_AREA:
            label = int(digits.labels[placed[0].pick.which])
            nothing = np.zeros((len(KEYPOINTS), 3), np.int64)
            things.append(Thing(label, 0, -1, True, outline, crowd, (), nothing, np.zeros((2, 3))))
    return things[::-1]


def _thing(digits: Digits, digit: _Placed, polygons: tuple[Polygon, ...], covered: Pixels) -> Thing:
    height, width = digit.outline.shape
    points = _ink_points(digits.images[digit.pick.which])
    pixels = _keypoints(points) @ digit.place[:, :2].T + digit.place[:, 2]
    x, y = np.clip(np.round(pixels), 0, (width - 1, height - 1)).astype(np.int64).T
    visibility = np.where(covered[y, x], 1, 2)
    return Thing(
        label=int(digits.labels[digit.pick.which]),
        style=digit.pick.style,
        source=int(digits.sources[digit.pick.which]),
        crowd=False,
        outline=digit.outline,
        mask=rle.fill(polygons, height, width),
        polygons=polygons,
        keypoints=np.stack([x, y, visibility], axis=1),
        to_sheet=_to_sheet(points, digit.place),
    )


def _ink_points(digit: Ink) -> npt.NDArray[np.float64]:
    """Return the points of a digit's ink, (N, 2), in its own pixel numbers."""
    large = cv2.resize(digit, None, fx=_FINE, fy=_FINE, interpolation=cv2.INTER_CUBIC)
    y, x = np.nonzero(large > min(0.5, float(large.max()) / 2))
    points: npt.NDArray[np.float64] = (np.stack([x, y], axis=1) + 0.5) / _FINE - 0.5
    return points


def _keypoints(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the keypoints of a digit's ink, (17, 2), in its own pixel numbers."""
    angles = np.arange(16) / 16 * 2 * np.pi
    directions = np.stack([np.sin(angles), -np.cos(angles)])
    return np.vstack([points.mean(axis=0), points[np.argmax(points @ directions, axis=0)]])


def _to_sheet(points: npt.NDArray[np.float64], place: Matrix) -> Matrix:
    """Return the map from the picture's pixels to the rectangle around the ink, (2, 3)."""
    low, high = points.min(axis=0) - 0.5 / _FINE, points.max(axis=0) + 0.5 / _FINE
    back = np.linalg.inv(place[:, :2])
    # Pixel numbers are half a pixel less than places in the picture.
    offset = -back @ (place[:, 2] + 0.5)
    size = high - low
    return np.column_stack([back / size[:, None], (offset - low) / size])
