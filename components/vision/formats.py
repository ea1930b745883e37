"""Which files are images; needs no torch."""

from typing import Literal

from components.core.content import EXTENSIONS

__all__ = ["EXTENSIONS", "Split", "is_image"]

Split = Literal["train", "val"]


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image; hidden ones, some systems' copies, are none."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")
