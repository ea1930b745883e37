"""COCO's layout: train2017, val2017, and annotations of instances, keypoints and DensePose."""

from pathlib import Path

from components.datasets.coco import digits_densepose as densepose
from components.datasets.coco.digits_records import (
    Record,
    annotation,
    image_record,
    keypoint_fields,
    person_category,
    write_document,
)
from components.rendering.config import DigitsConfig
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import NAMES, SUPERCATEGORIES, real_digits
from components.vision.formats import Split

SPLITS: tuple[Split, ...] = ("train", "val")


def write(config: DigitsConfig, folder: Path) -> None:
    """Write both splits of 2017, then DensePose of 2014."""
    identity = 0
    for split in SPLITS:
        identity = _write_split(config, folder, split, identity)
    densepose.write(config, folder)


def category_id(label: int) -> int:
    """Return the id of a digit's category; the ids have a gap, as the original's have."""
    return label + 1 if label < 5 else label + 2


def _write_split(config: DigitsConfig, folder: Path, split: Split, identity: int) -> int:
    """Write a split; ids go on after `identity`, and the last one is returned."""
    name = f"{split}2017"
    (folder / name).mkdir(parents=True)
    images: list[Record] = []
    instances: list[Record] = []
    keypoints: list[Record] = []
    pictures = config.pictures.train if split == "train" else config.pictures.val
    for picture in render_pictures(
        config, f"coco/{name}", real_digits(split), pictures, crowds=True
    ):
        identity += 1
        image, file = identity, f"{identity:012d}.jpg"
        write_jpeg(config, picture, folder / name / file)
        images.append(image_record(picture, image, file, name, file))
        for place, thing in enumerate(picture.things):
            record = annotation(thing, image * 100 + place, image, category_id(thing.label))
            instances.append(record)
            keypoints.append(record | {"category_id": 1} | keypoint_fields(thing))
    annotations = folder / "annotations"
    text = f"handwritten digits, {name}"
    write_document(annotations / f"instances_{name}.json", text, images, instances, _categories())
    write_document(
        annotations / f"person_keypoints_{name}.json", text, images, keypoints, [person_category()]
    )
    return identity


def _categories() -> list[Record]:
    return [
        {"id": category_id(label), "name": name, "supercategory": _supercategory(label).lower()}
        for label, name in enumerate(NAMES)
    ]


def _supercategory(label: int) -> str:
    return next(name for name, labels in SUPERCATEGORIES.items() if label in labels)
