"""Builds a detector with the library that was chosen, and imports no other."""

from pathlib import Path

from components.detection.interface import Detector, Head
from components.detection.libraries import Library
from components.detection.model import ModelConfig


def build_detector(library: Library, model: ModelConfig, backbone: Path, head: Head) -> Detector:
    """Build a detector; everything but the backbone is drawn from torch's random state.

    Args:
        library: Which builds it.
        model: What it is.
        backbone: The artifact of `convert`.
        head: What the data asks for.

    Raises:
        DataError: if the backbone is damaged, BGR, or of an architecture that does not fit.
        ConfigError: if the library is not installed, or lacks a part of the model.
    """
    if library == "detectron2":
        from components.detection.libraries.detectron2 import build
    else:
        from components.detection.libraries.torchvision import build
    return build(model, backbone, head)
