"""Which files are images; needs no torch."""

import json
import os
from pathlib import Path
from typing import Literal

from components.core.content import EXTENSIONS
from components.core.errors import DataError
from components.core.store import KeyNotFound, open_store
from components.core.store.shards import INDEX

__all__ = ["EXTENSIONS", "Split", "count_stored_images", "count_training_images", "is_image"]

Split = Literal["train", "val"]


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image; hidden ones, some systems' copies, are none."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def count_training_images(path: Path, layout: str, at_most: int | None = None) -> int:
    """Count the training images of a data set, or the lines of a list, by their names alone.

    What cannot be read counts as nothing: whoever reads it says why.

    Args:
        path: The data set's folder, or the list.
        layout: The data set's; all of `images` is for training, of others a folder `train`.
        at_most: Where counting may end.
    """
    if (path / "train" / INDEX).is_file():
        return _count_in_shards(path / "train" / INDEX)
    if layout != "images" and (path / "train").is_dir():
        path = path / "train"
    if path.is_file():
        with path.open("rb") as lines:
            return sum(bool(line.strip()) for line in lines)
    count = 0
    for _, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith((".", "@", "__"))]
        count += sum(map(is_image, files))
        if at_most is not None and count >= at_most:
            break
    return count


def count_stored_images(url: str) -> int:
    """Count the training images of a data set in shards that is in a bucket.

    Raises:
        DataError: if it is in none.
        StoreError: if the bucket cannot be read.
    """
    try:
        return _count_listed(open_store(url).read(f"train/{INDEX}"))
    except KeyNotFound:
        raise DataError(
            f"{url} has no train/{INDEX}, by which images are counted: `moco data index` makes it"
        ) from None


def _count_in_shards(index: Path) -> int:
    try:
        return _count_listed(index.read_bytes())
    except OSError:
        return 0


def _count_listed(index: bytes) -> int:
    try:
        return sum(shard["images"] for shard in json.loads(index)["shards"])
    except (ValueError, KeyError, TypeError):
        return 0
