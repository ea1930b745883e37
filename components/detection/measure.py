"""The work of the stage `detection.evaluate`."""

import tempfile
from pathlib import Path
from typing import Any

from components.core.config import parse_config
from components.core.errors import DataError, UsageError
from components.core.stage import Job
from components.datasets.instances import InstanceSet
from components.datasets.loading import detection_reader
from components.detection.config import DetectionConfig
from components.detection.data import test_loader
from components.detection.detectors import DetectorCard, read_detector, read_detector_card
from components.detection.evaluate import EvaluateDetectionConfig
from components.detection.libraries import told
from components.detection.predict import Predicted, predict
from components.detection.train import head_of, results_of, write_measured
from components.training import distributed
from components.training.images import corrupt_images


def run(job: Job[EvaluateDetectionConfig]) -> None:
    """Measure a detector in as many processes as there are GPUs, or stored predictions in one.

    Raises:
        UsageError: unless either a detector with its backbone or predictions are given.
        DataError: if they are of another data set or do not fit the data.
    """
    if job.has_input("model") == job.has_input("predictions"):
        raise UsageError("give either --input.model or --input.predictions, and not both")
    if job.has_input("model") != job.has_input("backbone"):
        raise UsageError("--input.model and --input.backbone belong together: give both")
    if job.has_input("predictions"):
        predictions = job.input("predictions")
        lineage = job.lineage("predictions")
        known = lineage.config if lineage and lineage.stage.startswith("detection.") else {}
        made_on = known.get("dataset", job.config.dataset)
        if made_on != job.config.dataset:
            raise DataError(
                f"{predictions} was made on {made_on}, the dataset is {job.config.dataset}"
            )
        measure_stored(job, _config_of(job.config, known))
    else:
        distributed.launch(job.config.processes, measure_detector, job)


def measure_stored(job: Job[EvaluateDetectionConfig], config: DetectionConfig) -> None:
    """Measure predictions that training, by this config, or another code base wrote."""
    data = job.input("data")
    images = detection_reader(config.dataset).read(data, "val")
    results = results_of(config, data, images)
    nothing = Predicted({}, {})
    write_measured(job.output("metrics"), results, nothing, job.input("predictions"), details={})


def measure_detector(job: Job[EvaluateDetectionConfig]) -> None:
    """Measure a detector, as one process of several; rank 0 writes the figures."""
    config, data, model = job.config, job.input("data"), job.input("model")
    card = read_detector_card(model)
    if card.dataset != config.dataset:
        raise DataError(f"{model} was trained on {card.dataset}, the dataset is {config.dataset}")
    training = _config_of(config, card.config)
    images = detection_reader(card.dataset).read(data, "val")
    _check_classes(card, images, model, data)
    results = results_of(training, data, images)
    head = head_of(training, images)
    detector = read_detector(model, job.input("backbone"), head, training.model)
    detector.to(distributed.device())
    loader = test_loader(images, training)
    predicted = predict(detector, loader, results)
    corrupt: Any = corrupt_images(loader)
    if distributed.rank() == 0:
        details = {**told(card.library), "corrupt_validation_images": corrupt}
        with tempfile.TemporaryDirectory() as folder:
            results.write(Path(folder), predicted.records)
            write_measured(job.output("metrics"), results, predicted, Path(folder), details=details)


def _config_of(config: EvaluateDetectionConfig, known: dict[str, Any]) -> DetectionConfig:
    """Bring the config of a training, or the defaults of all of them, to this evaluation."""
    own = config.model_dump(mode="json")
    return parse_config(DetectionConfig, {**known, **own})


def _check_classes(card: DetectorCard, images: InstanceSet, model: Path, data: Path) -> None:
    names, keypoints = images.categories.names, images.categories.keypoints
    if card.classes != names or (card.keypoints and card.keypoints != keypoints):
        raise DataError(
            f"{model} knows {len(card.classes)} classes and {len(card.keypoints)} keypoints, "
            f"{data} has {len(names)} and {len(keypoints)}: give the data set that the "
            "detector was trained for"
        )
