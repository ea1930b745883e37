"""ADE20K's layout in miniature: a wall, ten digits, and borders that are no class."""

from pathlib import Path

import numpy as np
from PIL import Image

from components.datasets.ade20k.reading import CLASSES_FILE
from components.rendering.config import DigitsConfig
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import NAMES, real_digits
from components.vision.formats import Split

CLASSES = ("wall", *NAMES)
FOLDERS: dict[Split, tuple[str, str]] = {
    "train": ("training", "ADE_train"),
    "val": ("validation", "ADE_val"),
}
"""What a split is called, and how its files begin."""


def write(config: DigitsConfig, folder: Path) -> None:
    """Write both splits and the list of the classes."""
    for split, (name, start) in FOLDERS.items():
        images, annotations = (folder / place / name for place in ("images", "annotations"))
        for place in (images, annotations):
            place.mkdir(parents=True)
        count = (config.pictures.train if split == "train" else config.pictures.val) // 2
        pictures = render_pictures(config, f"ade20k/{name}", real_digits(split), count)
        for number, picture in enumerate(pictures, 1):
            stem = f"{start}_{number:08d}"
            write_jpeg(config, picture, images / f"{stem}.jpg")
            labels = np.ones(picture.pixels.shape[:2], np.uint8)
            for thing in picture.things:
                labels[thing.mask] = CLASSES.index(NAMES[thing.label]) + 1
            labels[picture.borders()] = 0
            Image.fromarray(labels).save(annotations / f"{stem}.png")
    rows = [f"{number}\t0\t0\t0\t0\t{name}" for number, name in enumerate(CLASSES, 1)]
    text = "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows])
    (folder / CLASSES_FILE).write_text(text + "\n", "utf-8")
