"""What all layouts share: which digit each scene shows, and writing pictures fast."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from components.digits import DigitsConfig
from components.digits.scenes import Scene, render_scene
from components.digits.source import Digits, real_digits
from components.vision.formats import Split

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


def write_jpeg(config: DigitsConfig, scene: Scene, path: Path) -> None:
    """Write a scene's picture."""
    data = simplejpeg.encode_jpeg(scene.pixels, config.jpeg_quality, colorspace="RGB")
    path.write_bytes(data)
