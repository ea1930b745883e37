"""The model libraries behind one interface: detectron2, the paper's, and torchvision."""

import importlib.util
from typing import Literal

from components.core.errors import ConfigError

Library = Literal["detectron2", "torchvision"]
"""Which library builds a detector; a reported number says which."""


def available(library: Library) -> bool:
    """Return whether a library is installed."""
    return importlib.util.find_spec(library) is not None


def resolve(wanted: Literal["auto"] | Library) -> Library:
    """Choose the library of a training: the paper's where it is installed.

    Raises:
        ConfigError: if the wanted one is not installed.
    """
    if wanted == "auto":
        return "detectron2" if available("detectron2") else "torchvision"
    if not available(wanted):
        raise ConfigError(
            f"library is {wanted!r}, which is not installed here; run the stage in the image "
            f"images/{wanted}, or set library to torchvision"
        )
    return wanted
