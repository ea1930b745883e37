"""detectron2, the paper's library: its models, made from our config and the converted backbone."""

import importlib.util
from pathlib import Path

from components.core.errors import ConfigError
from components.detection.interface import Detector, Head
from components.detection.model import ModelConfig


def build(model: ModelConfig, backbone: Path, head: Head) -> Detector:
    """Build a detector of detectron2; see `components.detection.interface.build_detector`.

    Raises:
        DataError: if the backbone is damaged, BGR, or of an architecture that does not fit.
        ConfigError: if detectron2, or DensePose where it is asked for, is not installed.
    """
    _require("detectron2")
    if model.surface != "none":
        _require("densepose")
    from components.detection.libraries.detectron2.detector import Detectron2Detector

    return Detectron2Detector(model, backbone, head)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"the model needs {package}, which is not installed here; run the stage in the image "
            "images/detectron2, or install it with `make detectron2`"
        )
