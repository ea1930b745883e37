"""The artifact of a trained detector: written, read, and put together again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save_file

from components.core.config import Config
from components.core.errors import DataError
from components.detection.config import DatasetName
from components.detection.interface import Detector, Head
from components.detection.libraries import Library
from components.detection.libraries.building import build_detector
from components.detection.model import ModelConfig
from components.vision.architectures import MODEL_CARD, BackboneCard
from components.vision.backbones import load_weights, read_card, read_tensors

WEIGHTS = "detector.safetensors"


class DetectorCard(Config):
    """The content of `model.json`."""

    dataset: DatasetName
    library: Library
    """Which built it: weights are named as the library names them."""
    classes: tuple[str, ...]
    """In the order of the labels."""
    keypoints: tuple[str, ...] = ()
    backbone: BackboneCard
    """What it was trained from."""
    config: dict[str, Any]
    """Of the stage that trained it."""


@dataclass(frozen=True)
class TrainedDetector:
    """A trained detector and what it is."""

    detector: Detector
    card: DetectorCard


def write_detector(folder: Path, trained: TrainedDetector) -> None:
    """Write `detector.safetensors` and `model.json`."""
    state = trained.detector.state_dict()
    save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    document = json.dumps(trained.card.model_dump(mode="json"), indent=1)
    (folder / MODEL_CARD).write_text(document + "\n", "utf-8")


def read_detector_card(folder: Path) -> DetectorCard:
    """Read `model.json`.

    Raises:
        DataError: if it is missing or not of a detector.
    """
    path = folder / MODEL_CARD
    try:
        return DetectorCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise DataError(
            f"{path} does not describe a detector; give the `model` of a detection stage: {error}"
        ) from None


def read_detector(folder: Path, backbone: Path, head: Head, model: ModelConfig) -> Detector:
    """Put a trained detector together.

    Args:
        folder: Of the detector.
        backbone: The artifact that it was trained from.
        head: What the data asks for.
        model: Its config.

    Raises:
        DataError: if the backbone is another, or the weights do not fit.
        ConfigError: if the detector's library is not installed.
    """
    card, given = read_detector_card(folder), read_card(backbone)
    for field in ("architecture", "mean", "std"):
        if getattr(given, field) != getattr(card.backbone, field):
            raise DataError(
                f"{folder} was trained from a backbone with {field} "
                f"{getattr(card.backbone, field)}, but {backbone} has {getattr(given, field)}; "
                "give the one that it was trained from"
            )
    detector = build_detector(card.library, model, backbone, head)
    load_weights(detector, read_tensors(folder / WEIGHTS), str(folder))
    return detector
