"""What all layouts share: which digit each scene shows, and writing pictures fast."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from components.rendering.config import DigitsConfig
from components.rendering.pictures import Pick, Picture, render_picture
from components.rendering.scenes import Scene, ground, render_scene
from components.rendering.source import Digits, real_digits
from components.vision.formats import Split

_SHAPES = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0))  # width and height over the longer side
_EVERY = 50  # one picture in so many shows nothing, as some of COCO's do
_SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "val": 1}


def scene_count(config: DigitsConfig, split: Split) -> int:
    """Return how many scenes a split has."""
    return config.train_scenes if split == "train" else config.val_scenes


def render_scenes(
    config: DigitsConfig, layout: str, split: Split, mains: npt.NDArray[np.int64]
) -> Iterator[Scene]:
    """Render one scene for each main digit.

    Each has a generator of its own, so a scene never changes with the number of others.
    """
    digits = real_digits(split)
    key = (config.seed, zlib.crc32(layout.encode()), _SPLIT_NUMBERS[split])
    for number, main in enumerate(mains):
        yield render_scene(config, digits, int(main), np.random.default_rng((*key, number)))


def every_digit_in_turn(digits: Digits, scenes: int) -> npt.NDArray[np.int64]:
    """Choose main digits so that all are shown equally often, to within one scene."""
    return np.arange(scenes, dtype=np.int64) % len(digits.labels)


def render_pictures(
    config: DigitsConfig,
    name: str,
    digits: Digits,
    count: int,
    pick: Callable[[np.random.Generator], Pick] | None = None,
    *,
    crowds: bool = False,
) -> Iterator[Picture]:
    """Render pictures with several digits; one in fifty shows nothing.

    Args:
        config: Sizes.
        name: Of the layout and its split: each name has pictures of its own.
        digits: Whose digits are shown.
        count: Of pictures.
        pick: Chooses a digit and its style; any solid digit by default.
        crowds: Whether some show a crowd, which not every data set can say.
    """
    sizes = config.pictures

    def any_digit(generator: np.random.Generator) -> Pick:
        return Pick(int(generator.integers(len(digits.labels))))

    for number in range(count):
        generator = picture_generator(config, name, number)
        shape = _SHAPES[int(generator.integers(len(_SHAPES)))]
        size = (round(shape[0] * sizes.pixels), round(shape[1] * sizes.pixels))
        light = ground(size, config.texture, generator)
        many = int(generator.integers(sizes.digits[0], sizes.digits[1] + 1))
        picks = [(pick or any_digit)(generator) for _ in range(many)]
        crowd = int(generator.integers(10))
        share = sizes.crowds if crowds else 0
        if number % _EVERY == _EVERY - 1:
            picks, share = [], 0
        shown = crowd if generator.random() < share else None
        yield render_picture(sizes, digits, picks, light, generator=generator, crowd=shown)


def picture_generator(config: DigitsConfig, name: str, number: int) -> np.random.Generator:
    """Return the generator of a picture, which never changes with the number of others."""
    return np.random.default_rng((config.seed, zlib.crc32(name.encode()), number))


def write_jpeg(config: DigitsConfig, scene: Scene | Picture, path: Path) -> None:
    """Write a scene's picture."""
    data = simplejpeg.encode_jpeg(scene.pixels, config.jpeg_quality, colorspace="RGB")
    path.write_bytes(data)
