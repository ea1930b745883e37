"""LVIS v0.5's layout: lvis_v0.5_SPLIT.json beside COCO's images; classes with a long tail."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.datasets.coco.digits_records import Record, annotation, image_record, write_document
from components.rendering.config import DigitsConfig
from components.rendering.pictures import STYLES, Pick, Picture
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import NAMES, Digits, real_digits
from components.vision.formats import Split

SPLITS: tuple[Split, ...] = ("train", "val")
CLASSES = len(STYLES) * len(NAMES)
_STEEPNESS: dict[Split, float] = {"train": 1.15, "val": 0.4}
"""The n-th class has a share of n to the power of minus this. In validation the tail is
shorter than the original's, or its few pictures would measure no rare class."""
_RARE, _COMMON = 10, 100  # most training images of such a class, as published
_UNCHECKED = 0.1  # share of the pictures in which one class is not annotated exhaustively
_ABSENT = 3  # classes known to be absent from a picture


def write(config: DigitsConfig, folder: Path) -> None:
    """Write both splits; how frequent a class is called depends on training alone."""
    shown = {
        split: list(
            render_pictures(
                config,
                f"lvis/{split}",
                digits,
                _count(config, split),
                _Picker(digits, _STEEPNESS[split]),
            )
        )
        for split, digits in ((split, real_digits(split)) for split in SPLITS)
    }
    categories = _categories(shown["train"])
    identity = 0
    for split, pictures in shown.items():
        numbered = dict(enumerate(pictures, identity + 1))
        _write_split(config, folder, split, numbered, categories)
        identity += len(pictures)


def category_id(label: int, style: int) -> int:
    """Return the id of a class, 1 to 30: what a digit shows, and in which style."""
    return style * len(NAMES) + label + 1


def _count(config: DigitsConfig, split: Split) -> int:
    return config.pictures.train if split == "train" else config.pictures.val


class _Picker:
    """Chooses digits and styles so that classes have a long tail."""

    def __init__(self, digits: Digits, steepness: float) -> None:
        self._of_class = [digits.of_class(label) for label in range(len(NAMES))]
        shares = np.arange(1.0, CLASSES + 1) ** -steepness
        self._shares: npt.NDArray[np.float64] = shares / shares.sum()

    def __call__(self, generator: np.random.Generator) -> Pick:
        """Choose a digit."""
        style, label = divmod(int(generator.choice(CLASSES, p=self._shares)), len(NAMES))
        return Pick(int(generator.choice(self._of_class[label])), style)


def _classes_of(picture: Picture) -> list[int]:
    """Return the category of each instance."""
    return [category_id(thing.label, thing.style) for thing in picture.things]


def _categories(training: list[Picture]) -> list[Record]:
    images = Counter(category for picture in training for category in set(_classes_of(picture)))
    instances = Counter(category for picture in training for category in _classes_of(picture))
    records = []
    for style, style_name in enumerate(STYLES):
        for label, name in enumerate(NAMES):
            identity = category_id(label, style)
            count = images[identity]
            full = f"{style_name}_{name}"
            records.append(
                {
                    "id": identity,
                    "name": full,
                    "synset": f"{full}.n.01",
                    "synonyms": [full],
                    "def": f"the digit {name}, {style_name}",
                    "image_count": count,
                    "instance_count": instances[identity],
                    "frequency": "r" if count <= _RARE else "c" if count <= _COMMON else "f",
                }
            )
    return records


def _write_split(
    config: DigitsConfig,
    folder: Path,
    split: Split,
    pictures: dict[int, Picture],
    categories: list[Record],
) -> None:
    name = f"{split}2017"
    (folder / name).mkdir(parents=True)
    images: list[Record] = []
    annotations: list[Record] = []
    for identity, picture in pictures.items():
        file = f"{identity:012d}.jpg"
        write_jpeg(config, picture, folder / name / file)
        generator = np.random.default_rng((config.seed, identity))
        # Version 0.5 calls images by their names of 2014.
        record = image_record(picture, identity, f"COCO_{split}2014_{file}", name, file)
        images.append(record | _verdicts(picture, generator))
        for place, thing in enumerate(picture.things):
            category = category_id(thing.label, thing.style)
            entry = annotation(thing, identity * 100 + place, identity, category)
            annotations.append({key: entry[key] for key in entry if key != "iscrowd"})
    path = folder / f"lvis_v0.5_{split}.json"
    write_document(path, f"handwritten digits, {split}", images, annotations, categories)


def _verdicts(picture: Picture, generator: np.random.Generator) -> Record:
    """Say of which classes a picture certainly has none, and of which more than annotated."""
    present = set(_classes_of(picture))
    lacking = sorted(set(range(1, CLASSES + 1)) - present)
    absent = sorted(generator.choice(lacking, _ABSENT, replace=False).tolist())
    unchecked = [min(present)] if present and generator.random() < _UNCHECKED else []
    return {"neg_category_ids": absent, "not_exhaustive_category_ids": unchecked}
