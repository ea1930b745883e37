"""The random parameters of a view, drawn from a generator that belongs to this view alone."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from components.vision.config import AugmentationConfig

Operation = Literal["brightness", "contrast", "saturation", "hue", "grayscale"]

_ORDERS = tuple(itertools.permutations(range(4)))
_ATTEMPTS = 10


class Crop(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything that is random about one view of one image.

    Attributes:
        crop: The rectangle that is resized to the view.
        flip: Whether it is mirrored.
        colours: Colour operations with their factors, in the order in which they apply.
        blur: Standard deviation of the Gaussian blur, pixels; 0 for none.
    """

    crop: Crop
    flip: bool
    colours: tuple[tuple[Operation, float], ...]
    blur: float


def view_generator(seed: int, epoch: int, index: int, view: int) -> np.random.Generator:
    """Return the generator of one view; it depends on nothing but these four numbers.

    So neither the number of loading processes nor an interruption changes an image.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index, view))))


def draw_view(
    config: AugmentationConfig, height: int, width: int, generator: np.random.Generator
) -> View:
    """Draw the parameters of a view of an image of height × width pixels."""
    # All numbers at once: one call is faster than twenty, and what one of them is used
    # for never shifts the others.
    numbers: list[float] = generator.random(4 * _ATTEMPTS + 10).tolist()
    crop = _draw_crop(config, height, width, numbers)
    flip, gray, jitter, order, *factors, blur, sigma = numbers[4 * _ATTEMPTS :]

    colours: list[tuple[Operation, float]] = []
    if jitter < config.jitter_probability:
        colours += _draw_jitter(config, int(order * len(_ORDERS)), factors)
    if gray < config.grayscale_probability:
        first = config.grayscale == "before_jitter"
        colours.insert(0 if first else len(colours), ("grayscale", 0.0))
    return View(
        crop=crop,
        flip=flip < config.flip_probability,
        colours=tuple(colours),
        blur=_between(*config.blur_sigma, sigma) if blur < config.blur_probability else 0.0,
    )


def _draw_crop(
    config: AugmentationConfig, height: int, width: int, numbers: Sequence[float]
) -> Crop:
    """Draw area and aspect until the crop fits, ten times at most; then take the centre."""
    low_aspect, high_aspect = config.crop_aspect
    for attempt in range(_ATTEMPTS):
        area, aspect, top, left = numbers[4 * attempt : 4 * attempt + 4]
        pixels = height * width * _between(*config.crop_area, area)
        ratio = math.exp(_between(math.log(low_aspect), math.log(high_aspect), aspect))
        crop_width = round(math.sqrt(pixels * ratio))
        crop_height = round(math.sqrt(pixels / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return Crop(
                top=int(top * (height - crop_height + 1)),
                left=int(left * (width - crop_width + 1)),
                height=crop_height,
                width=crop_width,
            )
    crop_width = min(width, max(1, round(height * high_aspect)))
    crop_height = min(height, max(1, round(width / low_aspect)))
    return Crop((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def _draw_jitter(
    config: AugmentationConfig, order: int, numbers: Sequence[float]
) -> list[tuple[Operation, float]]:
    strengths: tuple[tuple[Operation, float, float, float], ...] = (
        ("brightness", config.brightness, max(0.0, 1 - config.brightness), 1 + config.brightness),
        ("contrast", config.contrast, max(0.0, 1 - config.contrast), 1 + config.contrast),
        ("saturation", config.saturation, max(0.0, 1 - config.saturation), 1 + config.saturation),
        ("hue", config.hue, -config.hue, config.hue),
    )
    drawn = []
    for position in _ORDERS[order]:
        name, strength, low, high = strengths[position]
        if strength > 0:
            drawn.append((name, _between(low, high, numbers[position])))
    return drawn


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number
