"""Renders a scene: real digits, light on dark, nearly grey by default, with the mask of each."""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from components.rendering.config import DigitsConfig
from components.rendering.source import Digits

Ink = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

DIGIT_SIDE = 8  # scikit-learn's images
_TEXTURE_CELLS = 6
_COLOUR_LIGHTNESS = 2  # a coloured ground's brightest channel over a grey ground


@dataclass(frozen=True)
class DrawnDigit:
    """A digit in a scene.

    Attributes:
        label: What it shows, 0 to 9.
        source: Its position in scikit-learn's set.
        box: Left, top, width, height of its ink, pixels.
        ink: Its share in each pixel, (H, W), 0 to 1.
    """

    label: int
    source: int
    box: tuple[int, int, int, int]
    ink: Ink


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        pixels: RGB, (H, W, 3).
        instances: Its digits, the main one first.
    """

    pixels: npt.NDArray[np.uint8]
    instances: tuple[DrawnDigit, ...]


def render_scene(
    config: DigitsConfig, digits: Digits, main: int, generator: np.random.Generator
) -> Scene:
    """Render a scene around the digit `main` of `digits`.

    Colours tell nothing of the class. Tints are faint, because contrastive learning takes a
    strong one as the instance and does not learn the digits. A hue of the ground, one of a few,
    is shared by many scenes: it hardly tells which scene this is, but those of a whole
    sub-batch tell which sub-batch it is (Appendix A.9).
    """
    side = config.pixels
    instances = [_place(config, digits, main, config.digit_size, generator)]
    for _ in range(int(generator.integers(config.companions + 1))):
        companion = int(generator.integers(len(digits.labels)))
        instances.append(_place(config, digits, companion, (0.2, 0.32), generator))

    light = ground((side, side), config.texture, generator)[..., None]
    if config.colours:
        light = light * _hue(int(generator.integers(config.colours)) / config.colours)
    for number, instance in reversed(list(enumerate(instances))):
        brightness = generator.uniform(170, 235) if number == 0 else generator.uniform(70, 120)
        light += instance.ink[..., None] * (np.float32(brightness) - light)
    light += generator.normal(0, 3, (side, side, 1)).astype(np.float32)

    tint = generator.uniform(0.94, 1.06, 3).astype(np.float32)
    pixels = np.clip(light * tint, 0, 255).astype(np.uint8)
    return Scene(pixels, tuple(instances))


def _place(
    config: DigitsConfig,
    digits: Digits,
    which: int,
    size: tuple[float, float],
    generator: np.random.Generator,
) -> DrawnDigit:
    """Scale, turn and slant a digit a little and put it somewhere, wholly inside."""
    scale = generator.uniform(*size) * config.pixels / DIGIT_SIDE
    turn = random_turn(generator)
    room = max(0.0, (config.pixels - scale * DIGIT_SIDE) / 2)
    centre = config.pixels / 2 + generator.uniform(-room, room, 2)
    ink = draw(digits.images[which], placement(scale * turn, centre), (config.pixels,) * 2)
    return DrawnDigit(
        label=int(digits.labels[which]),
        source=int(digits.sources[which]),
        box=tuple(cv2.boundingRect((ink > 0.3).astype(np.uint8))),
        ink=ink,
    )


def _hue(turn: float) -> Ink:
    """Return a full colour's red, green and blue over a grey ground's, (3,).

    Args:
        turn: Its place on the colour circle, 0 to 1.
    """
    return np.array(colorsys.hsv_to_rgb(turn, 1, _COLOUR_LIGHTNESS), np.float32)


def random_turn(generator: np.random.Generator) -> Matrix:
    """Choose how a digit is turned and slanted, a little, (2, 2)."""
    angle, slant = np.radians(generator.uniform(-8, 8)), generator.uniform(-0.1, 0.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned: Matrix = turn @ np.array([[1, slant], [0, 1]])
    return turned


def placement(matrix: Matrix, centre: Matrix) -> Matrix:
    """Return the map from a digit's pixel numbers to the scene's, (2, 3).

    Args:
        matrix: Scale, turn and slant, (2, 2).
        centre: Where the digit's middle goes, (2,), pixels from the top left corner.
    """
    middle = np.full(2, (DIGIT_SIDE - 1) / 2)
    return np.column_stack([matrix, centre - 0.5 - matrix @ middle])


def draw(digit: Ink, place: Matrix, size: tuple[int, int]) -> Ink:
    """Return a digit's share in each pixel of a scene of this width and height."""
    ink = cv2.warpAffine(digit, place, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    share: Ink = np.clip(ink, 0, 1).astype(np.float32)
    return share


def ground(size: tuple[int, int], texture: float, generator: np.random.Generator) -> Ink:
    """Make a dark ground of this width and height with a soft texture of its own."""
    dark = np.full(size[::-1], generator.uniform(20, 60), np.float32)
    cells = generator.uniform(-1, 1, (_TEXTURE_CELLS, _TEXTURE_CELLS)).astype(np.float32)
    dark += 80 * np.float32(texture) * cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC)
    light: Ink = np.maximum(dark, 0)
    return light
