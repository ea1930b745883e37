"""detectron2, the paper's library: its models, made from our config and the converted backbone."""

from importlib.util import find_spec
from pathlib import Path

from components.core.errors import ConfigError
from components.detection.interface import Detector, Head
from components.detection.libraries import INSTALL, packages
from components.detection.model import ModelConfig


def build(model: ModelConfig, backbone: Path, head: Head) -> Detector:
    """Build a detector of detectron2; see `components.detection.libraries.building.build_detector`.

    Raises:
        DataError: if the backbone is damaged, BGR, or of an architecture that does not fit.
        ConfigError: if detectron2, or DensePose where it is asked for, is not installed.
    """
    for package in packages("detectron2", model):
        if find_spec(package) is None:
            raise ConfigError(f"the detector needs {package}, not installed here: {INSTALL}")
    from components.detection.libraries.detectron2.detector import Detectron2Detector

    return Detectron2Detector(model, backbone, head)
