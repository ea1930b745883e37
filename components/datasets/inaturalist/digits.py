"""iNaturalist 2018's layout: train2018.json, val2018.json, train_val2018/SUPER/CATEGORY/ID.jpg."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.rendering.config import DigitsConfig
from components.rendering.sets import (
    every_digit_in_turn,
    render_scenes,
    scene_count,
    write_jpeg,
)
from components.rendering.source import SUPERCATEGORIES, Digits, real_digits
from components.vision.formats import Split

SPLITS: tuple[Split, ...] = ("train", "val")

# By their strokes, as species are grouped into classes.
# From the commonest to the rarest; easily confused digits lie at both ends.
COMMONNESS = (1, 8, 4, 0, 5, 7, 2, 9, 6, 3)


def write(config: DigitsConfig, folder: Path) -> None:
    """Write ten categories, long-tailed in training and even in validation, as the original is."""
    categories = _categories()
    image_id = 0
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        mains = _main_digits(config, split)
        for scene in render_scenes(config, "inaturalist", split, mains):
            image_id += 1
            category = categories[scene.instances[0].label]
            name = f"train_val2018/{category['supercategory']}/{category['id']}/{image_id:08d}.jpg"
            path = folder / name
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
            write_jpeg(config, scene, path)
            height, width = scene.pixels.shape[:2]
            images.append(
                {
                    "id": image_id,
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "license": 1,
                    "rights_holder": "",
                }
            )
            annotations.append(
                {"id": image_id, "image_id": image_id, "category_id": category["id"]}
            )
        document = {
            "info": {"year": 2018, "description": f"handwritten digits, {split}"},
            "licenses": [{"id": 1, "name": "CC BY 4.0", "url": ""}],
            "categories": categories,
            "images": images,
            "annotations": annotations,
        }
        (folder / f"{split}2018.json").write_text(json.dumps(document), "utf-8")


def long_tail(scenes: int, imbalance: float) -> npt.NDArray[np.int64]:
    """Divide scenes among categories from the commonest to the rarest, in equal ratios."""
    shares = imbalance ** -np.linspace(0, 1, len(COMMONNESS))
    ends = np.round(np.cumsum(shares / shares.sum()) * scenes).astype(np.int64)
    return np.diff(ends, prepend=0)


def _main_digits(config: DigitsConfig, split: Split) -> npt.NDArray[np.int64]:
    digits = real_digits(split)
    scenes = scene_count(config, split)
    if split == "val":
        return every_digit_in_turn(digits, scenes)
    counts = long_tail(scenes, config.imbalance)
    mains = np.concatenate(
        [_cycle(digits, label, count) for label, count in zip(COMMONNESS, counts, strict=True)]
    )
    return np.random.default_rng(config.seed).permutation(mains)


def _cycle(digits: Digits, label: int, count: int) -> npt.NDArray[np.int64]:
    return np.resize(digits.of_class(label), count)


def _categories() -> list[dict[str, Any]]:
    """List the categories; the id is the digit."""
    of_digit = {digit: name for name, group in SUPERCATEGORIES.items() for digit in group}
    return [
        {"id": digit, "name": f"Digitus {digit}", "supercategory": of_digit[digit]}
        for digit in range(10)
    ]
