"""The work of the stage `detection.evaluate`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.config import parse_config
from components.core.errors import DataError, UsageError
from components.core.main import Job
from components.detection.cityscapes import CityscapesConfig
from components.detection.coco import CocoConfig
from components.detection.config import DetectionConfig, Task
from components.detection.data import test_loader
from components.detection.densepose import DensePoseConfig
from components.detection.detectors import DetectorCard, read_detector, read_detector_card
from components.detection.evaluate import EvaluateConfig
from components.detection.keypoints import KeypointsConfig
from components.detection.libraries import told
from components.detection.lvis import LvisConfig
from components.detection.predict import Predicted, predict
from components.detection.results import make_results
from components.detection.splits import read_part
from components.detection.train import head_of, write_measured
from components.detection.voc import VocConfig
from components.training import distributed
from components.training.images import corrupt_images
from components.vision.datasets.instances import InstanceSet

CONFIGS: Mapping[Task, type[DetectionConfig]] = {
    "coco": CocoConfig,
    "voc": VocConfig,
    "keypoints": KeypointsConfig,
    "densepose": DensePoseConfig,
    "lvis": LvisConfig,
    "cityscapes": CityscapesConfig,
}
"""What trains for each task. The code's digest follows imports: stages loaded by name escape it."""


def run(job: Job[EvaluateConfig]) -> None:
    """Measure a detector in as many processes as there are GPUs, or stored predictions in one.

    Raises:
        UsageError: unless either a detector with its backbone or predictions are given.
        DataError: if they are of another task or do not fit the data.
    """
    if job.has_input("model") == job.has_input("predictions"):
        raise UsageError("give either --input.model or --input.predictions, and not both")
    if job.has_input("model") != job.has_input("backbone"):
        raise UsageError("--input.model and --input.backbone belong together: give both")
    if job.has_input("predictions"):
        predictions = job.input("predictions")
        lineage = job.lineage("predictions")
        known = lineage.config if lineage and lineage.stage.startswith("detection.") else {}
        if lineage and known and lineage.stage != f"detection.{job.config.task}":
            raise DataError(
                f"{predictions} was made by {lineage.stage}, the task is {job.config.task}"
            )
        measure_stored(job, _config_of(job.config, known))
    else:
        distributed.launch(job.config.processes, measure_detector, job)


def measure_stored(job: Job[EvaluateConfig], config: DetectionConfig) -> None:
    """Measure predictions that training, by this config, or another code base wrote."""
    data = job.input("data")
    results = make_results(config, data, read_part(config.task, data, "val"))
    nothing = Predicted({}, {})
    write_measured(job.output("metrics"), results, nothing, job.input("predictions"), details={})


def measure_detector(job: Job[EvaluateConfig]) -> None:
    """Measure a detector, as one process of several; rank 0 writes the figures."""
    config, data, model = job.config, job.input("data"), job.input("model")
    card = read_detector_card(model)
    if card.task != config.task:
        raise DataError(f"{model} was trained for {card.task}, the task is {config.task}")
    training = _config_of(config, card.config)
    images = read_part(card.task, data, "val")
    _check_classes(card, images, model, data)
    results = make_results(training, data, images)
    head = head_of(training, images)
    detector = read_detector(model, job.input("backbone"), head, training.model)
    detector.to(distributed.device())
    loader = test_loader(images, training)
    predicted = predict(detector, loader, results)
    corrupt: Any = corrupt_images(loader)
    if distributed.rank() == 0:
        details = {**told(card.library), "corrupt_validation_images": corrupt}
        with tempfile.TemporaryDirectory() as folder:
            results.write(Path(folder), predicted.found)
            write_measured(job.output("metrics"), results, predicted, Path(folder), details=details)


def _config_of(config: EvaluateConfig, known: dict[str, Any]) -> DetectionConfig:
    """Bring the config of a training, or that of its stage, to this evaluation."""
    own = {name: getattr(config, name) for name in ("test_batch", "processes")}
    own["loader"] = config.loader.model_dump(mode="json")
    if config.task == "densepose":
        own["without_geometry"] = config.without_geometry
    return parse_config(CONFIGS[config.task], {**known, **own})


def _check_classes(card: DetectorCard, images: InstanceSet, model: Path, data: Path) -> None:
    names, keypoints = images.categories.names, images.categories.keypoints
    if card.classes != names or (card.keypoints and card.keypoints != keypoints):
        raise DataError(
            f"{model} knows {len(card.classes)} classes and {len(card.keypoints)} keypoints, "
            f"{data} has {len(names)} and {len(keypoints)}: give the data set that the "
            "detector was trained for"
        )
