"""What image sets there are, and which files are images; needs no torch."""

from typing import Literal

from components.core.content import EXTENSIONS

__all__ = ["EXTENSIONS", "ImageKind", "Split", "is_image"]

Split = Literal["train", "val"]
ImageKind = Literal["imagenet", "inaturalist", "images"]
"""Layout of an image set: ImageNet's folders, iNaturalist 2018's JSON, or any folder or list."""


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image; hidden ones, some systems' copies, are none."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")
