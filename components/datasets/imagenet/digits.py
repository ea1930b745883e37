"""ImageNet's layout: FOLDER/train/WNID/WNID_NUMBER.JPEG and FOLDER/val/WNID/*.JPEG."""

from pathlib import Path

from components.rendering.config import DigitsConfig
from components.rendering.sets import (
    every_digit_in_turn,
    render_scenes,
    scene_count,
    write_jpeg,
)
from components.rendering.source import real_digits
from components.vision.formats import Split

SPLITS: tuple[Split, ...] = ("train", "val")


def write(config: DigitsConfig, folder: Path) -> None:
    """Write ten balanced classes; the class is what the main digit shows."""
    for split in SPLITS:
        for label in range(10):
            (folder / split / wnid(label)).mkdir(parents=True)
        mains = every_digit_in_turn(real_digits(split), scene_count(config, split))
        for number, scene in enumerate(render_scenes(config, "imagenet", split, mains), 1):
            name = wnid(scene.instances[0].label)
            stem = f"{name}_{number}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
            write_jpeg(config, scene, folder / split / name / f"{stem}.JPEG")


def wnid(label: int) -> str:
    """Return the folder name of a class, in the form of a WordNet id."""
    return f"n{label:08d}"
