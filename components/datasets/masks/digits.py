"""The layout of masks in miniature: ten digits on a ground, and borders that are no class."""

from pathlib import Path

import numpy as np
from PIL import Image

from components.datasets.masks.reading import CLASSES_FILE
from components.evaluation.semantic import IGNORED
from components.rendering.config import DigitsConfig
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import NAMES, real_digits
from components.vision.formats import Split

SPLITS: tuple[Split, ...] = ("train", "val")
CLASSES = ("ground", *NAMES)


def write(config: DigitsConfig, folder: Path) -> None:
    """Write both splits and the list of the classes."""
    for split in SPLITS:
        images, masks = (folder / place / split for place in ("images", "masks"))
        for place in (images, masks):
            place.mkdir(parents=True)
        count = (config.pictures.train if split == "train" else config.pictures.val) // 2
        pictures = render_pictures(config, f"masks/{split}", real_digits(split), count)
        for number, picture in enumerate(pictures):
            write_jpeg(config, picture, images / f"{number:04d}.jpg")
            labels = np.zeros(picture.pixels.shape[:2], np.uint8)
            for thing in picture.things:
                labels[thing.mask] = CLASSES.index(NAMES[thing.label])
            labels[picture.borders()] = IGNORED
            Image.fromarray(labels).save(masks / f"{number:04d}.png")
    (folder / CLASSES_FILE).write_text("\n".join(CLASSES) + "\n", "utf-8")
