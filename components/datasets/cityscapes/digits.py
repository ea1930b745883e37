"""Cityscapes' layout: leftImg8bit and gtFine, by split and city."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from components.evaluation import cityscapes
from components.rendering.config import DigitsConfig
from components.rendering.pictures import Pick, Picture, render_picture
from components.rendering.scenes import Ink, ground
from components.rendering.sets import picture_generator
from components.rendering.source import Digits, real_digits
from components.vision.formats import Split

CITIES: dict[Split, tuple[str, ...]] = {"train": ("inkstadt", "zifferau"), "val": ("kleindorf",)}
SHAPE = (4 / 3, 2 / 3)  # width and height over a picture's longer side
IDS = {name: number for number, name in cityscapes.CLASSES.items()}
THINGS = tuple(cityscapes.CLASSES[number] for number in cityscapes.THINGS)
LABELS = (*THINGS, "pole", "traffic sign")
"""What each digit stands for: eight instances, and two classes that are not told apart."""
_BANDS = ((0.3, "sky", 45), (0.55, "building", 20), (1.0, "road", 0))
"""The ground from the top: where each ends, its class, and how much lighter it is."""
_GROUP = 0.5  # an instance that is seen less than this is called a group


def write(config: DigitsConfig, folder: Path) -> None:
    """Write both splits, their pictures shared out among the cities."""
    counts: dict[Split, int] = {
        "train": config.pictures.train // 2,
        "val": config.pictures.val // 2,
    }
    for split, count in counts.items():
        digits = real_digits(split)
        cities = CITIES[split]
        for city in cities:
            for kind in ("leftImg8bit", "gtFine"):
                (folder / kind / split / city).mkdir(parents=True)
        for number in range(count):
            city = cities[number % len(cities)]
            picture, bands = _render(config, digits, split, number)
            stem = f"{split}/{city}/{city}_{number:06d}_000019"
            _write_picture(folder, stem, picture, bands)


def _render(
    config: DigitsConfig, digits: Digits, split: Split, number: int
) -> tuple[Picture, npt.NDArray[np.uint8]]:
    """Render a picture, and say of which class its ground is."""
    generator = picture_generator(config, f"cityscapes/{split}", number)
    sizes = config.pictures
    size = (round(SHAPE[0] * sizes.pixels), round(SHAPE[1] * sizes.pixels))
    light = ground(size, config.texture, generator)
    bands = _bands(light)
    many = int(generator.integers(sizes.digits[0], sizes.digits[1] + 1))
    picks = [Pick(int(generator.integers(len(digits.labels)))) for _ in range(many)]
    crowd = int(generator.integers(8)) if generator.random() < sizes.crowds else None
    picture = render_picture(sizes, digits, picks, light, generator=generator, crowd=crowd)
    return picture, bands


def _bands(light: Ink) -> npt.NDArray[np.uint8]:
    """Lighten a ground in bands; return the class of every pixel."""
    labels = np.zeros(light.shape, np.uint8)
    start = 0
    for end, name, lighter in _BANDS:
        stop = round(end * len(light))
        labels[start:stop] = IDS[name]
        light[start:stop] += lighter
        start = stop
    return labels


def _write_picture(folder: Path, stem: str, picture: Picture, bands: npt.NDArray[np.uint8]) -> None:
    objects = _ground_objects(bands)
    labels, instances = bands.copy(), bands.astype(np.uint16)
    counts: dict[int, int] = {}
    for thing in picture.things:
        name = LABELS[thing.label]
        number = value = IDS[name]
        group = thing.crowd or thing.seen < _GROUP
        if name in THINGS and not group:
            value = number * cityscapes.INSTANCE + counts.get(number, 0)
            counts[number] = counts.get(number, 0) + 1
        labels[thing.mask], instances[thing.mask] = number, value
        label = f"{name}group" if name in THINGS and group else name
        objects += [{"label": label, "polygon": polygon} for polygon in _corners(thing.mask)]
    height, width = labels.shape
    document = {"imgHeight": height, "imgWidth": width, "objects": objects}
    fine = f"{folder}/gtFine/{stem}_gtFine"
    Path(f"{fine}_polygons.json").write_text(json.dumps(document), "utf-8")
    for name, pixels in (
        (f"{fine}_labelIds.png", labels),
        (f"{fine}_instanceIds.png", instances),
        (f"{fine}_labelTrainIds.png", cityscapes.to_train_ids(labels)),
        (f"{folder}/leftImg8bit/{stem}_leftImg8bit.png", picture.pixels[..., ::-1]),
    ):
        cv2.imwrite(name, pixels)


def _ground_objects(bands: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
    return [
        {"label": name, "polygon": polygon}
        for _, name, _ in _BANDS
        for polygon in _corners(bands == IDS[name])
    ]


def _corners(mask: npt.NDArray[np.bool_]) -> list[list[list[int]]]:
    """Return the corners of a mask's pieces as pixel numbers, which the polygons' files have."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    return [contour[:, 0].tolist() for contour in contours if len(contour) >= 3]
