"""The model libraries behind one interface: detectron2, the paper's, and torchvision."""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

from pydantic import JsonValue

from components.detection.model import ModelConfig

Library = Literal["detectron2", "torchvision"]
"""Which library builds a detector; a reported number says which."""
INSTALL = "`make detectron2` installs it, and the image images/detectron2 has it"


def resolve(wanted: Literal["auto"] | Library, model: ModelConfig) -> Library:
    """Choose the library of a training: the paper's where it is installed, or alone has a part."""
    if wanted == "auto":
        alone = model.surface == "deeplab"
        return "detectron2" if alone or find_spec("detectron2") else "torchvision"
    return wanted


def packages(library: Library, model: ModelConfig) -> tuple[str, ...]:
    """Name what a library's model is built with, beyond what every stage has."""
    if library == "torchvision":
        return ()
    return ("detectron2",) if model.surface == "none" else ("detectron2", "densepose")


def told(library: Library) -> dict[str, JsonValue]:
    """Return what a report says of the library of a number; its build says nothing of a model."""
    return {"library": library, "library_version": version(library).partition("+")[0]}
