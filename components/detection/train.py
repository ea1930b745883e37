"""The work of the detection stages: train, predict, measure."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from components.core.log import get_logger
from components.core.metrics import Metrics, write_metrics, write_per_class
from components.core.stage import Job
from components.datasets.instances import InstanceSet
from components.datasets.loading import detection_reader
from components.datasets.results import MeasuredFigures, Results
from components.detection.config import DetectionConfig
from components.detection.data import DetectionBatch, test_loader, training_loader
from components.detection.detectors import DetectorCard, TrainedDetector, write_detector
from components.detection.interface import Detector, Head
from components.detection.libraries import Library, resolve, told
from components.detection.libraries.building import build_detector
from components.detection.pictures import draw_predictions
from components.detection.predict import Predicted, predict
from components.detection.splits import learnable, need_masks
from components.training import distributed
from components.training.history import History
from components.training.images import corrupt_images
from components.training.learner import Learner
from components.training.loop import train
from components.training.machine import check_machine
from components.training.precise_bn import recompute_statistics
from components.training.sync_batch_norm import synchronise
from components.vision.backbones import read_card
from components.vision.loading import BatchLoader

log = get_logger(__name__)


def run(job: Job[DetectionConfig]) -> None:
    """Train a detector, in as many processes as there are GPUs."""
    check_machine(job.config)
    library = resolve(job.config.library, job.config.model)
    job.facts.update(distributed.launch(job.config.processes, detect, job, library))


def detect(job: Job[DetectionConfig], library: Library) -> dict[str, Any]:
    """Train as one process of the training; rank 0 writes the outputs.

    Returns:
        Facts for the manifest.
    """
    config, data, backbone = job.config, job.input("data"), job.input("backbone")
    metrics, predictions = job.output("metrics"), job.output("predictions")
    reader = detection_reader(config.dataset)
    training, validation = reader.read_both(data)
    if config.model.masks:
        need_masks(training, "train")
        need_masks(validation, "val")
    # Made first: after days of training is too late to learn that nothing can be measured.
    results = results_of(config, data, validation)
    kept = learnable(reader, training, config.labels, config.seed)
    config = config.fit(len(kept))
    batches = partial(training_loader, training, config, data, kept)
    loader = batches()
    detector = _build(config, library, backbone, training)
    trained = train(
        Learner(
            module=detector,
            batches=loader,
            prepare=lambda raw, device, _: raw.to(device),
            evaluate=partial(_follow, detector, batches, results, config),
            evaluate_every=-(-config.iterations // config.evaluations),
            evaluate_last=False,
            norm_weight_decay=config.norm_weight_decay,
        ),
        config,
        total_steps=config.iterations,
        state=job.state,
        identity={**job.identity, "library": library},
        output=metrics,
    )
    renew_statistics(detector, loader, config, config.iterations)
    test = test_loader(validation, config)
    predicted = predict(detector, test, results)
    details: dict[str, JsonValue] = {
        **told(library),
        **trained.told,
        "classes": len(training.categories),
        "training_images": len(training),
        "training_images_with_instances": loader.quarantine.images,
        "iterations": config.iterations,
        "corrupt_images": corrupt_images(loader),  # type: ignore[dict-item]
        "corrupt_validation_images": corrupt_images(test),  # type: ignore[dict-item]
    }
    if distributed.rank() == 0:
        card = DetectorCard(
            dataset=config.dataset,
            library=library,
            classes=training.categories.names,
            keypoints=training.categories.keypoints if config.model.keypoints else (),
            backbone=read_card(backbone),
            config=config.model_dump(mode="json"),
        )
        write_detector(job.output("model"), TrainedDetector(detector, card))
        results.write(predictions, predicted.records)
        write_measured(
            metrics,
            results,
            predicted,
            predictions,
            details=details,
            history=trained.history,
        )
    return {
        "library": library,
        **trained.told,
        "classes": len(training.categories),
        **{
            name: len(details[name])  # type: ignore[arg-type]
            for name in ("corrupt_images", "corrupt_validation_images")
        },
    }


def renew_statistics(
    detector: Detector, loader: BatchLoader[DetectionBatch], config: DetectionConfig, step: int
) -> None:
    """Compute batch statistics anew, over the batches that come after a step of training."""
    device = distributed.device()
    # What is drawn in the forward pass is the same after an interruption, too.
    torch.manual_seed(config.seed)
    following = loader.between(step, step + config.precise_bn)
    if config.precise_bn:
        layers = recompute_statistics(detector, following, lambda raw: detector(raw.to(device)))
        log.info("batch statistics computed anew", layers=layers, batches=config.precise_bn)


def write_measured(
    folder: Path,
    results: Results,
    predicted: Predicted,
    predictions: Path,
    *,
    details: dict[str, JsonValue],
    history: History | None = None,
) -> None:
    """Measure stored predictions, and write a metrics artifact.

    It has figures, curves of the losses, results of each class, and a sheet.

    Args:
        folder: Of the metrics.
        results: The data's.
        predicted: What the sheet shows.
        predictions: Folder of the predictions.
        details: More to tell.
        history: Of the training, if there was one.
    """
    measured = results.measure(predictions)
    shown = {name: round(value, 2) for name, value in measured.values.items()}
    log.info("measured", **shown)
    images = results.images
    write_per_class(folder, _per_class(images, measured))
    metrics = Metrics(
        values=dict(measured.values),
        curves=history.curves(measured.values) if history else {},
        details={
            **details,
            "validation_images": len(images),
            "note": "What an image that could not be read shows counts as missed.",
        },
    )
    write_metrics(folder, metrics)
    draw_predictions(folder, images, predicted.pictured)


def results_of(config: DetectionConfig, root: Path, images: InstanceSet) -> Results:
    """Make what writes and measures a data set's predictions.

    Args:
        config: The stage's.
        root: The data set's folder.
        images: Those that are measured on.

    Raises:
        DataError: if the annotations cannot be measured on, or DensePose's geometry is missing.
    """
    geometry = not config.without_geometry
    reader = detection_reader(config.dataset)
    return reader.results(root, images, masks=config.model.masks, geometry=geometry)


def _per_class(images: InstanceSet, measured: MeasuredFigures) -> Iterator[dict[str, JsonValue]]:
    """Yield for every class, in the order of the labels, its instances and its figures."""
    counts = np.bincount(images.labels, minlength=len(images.categories)).tolist()
    for name, count in zip(images.categories.names, counts, strict=True):
        figures = {metric: of_class.get(name) for metric, of_class in measured.per_class.items()}
        yield {"class": name, "instances": count, **figures}


def _follow(
    detector: Detector,
    batches: Callable[[], BatchLoader[DetectionBatch]],
    results: Results,
    config: DetectionConfig,
    step: int,
) -> Mapping[str, float]:
    """Measure a detector that is still in training, and leave it as it was. Collective."""
    kept = [buffer.clone() for buffer in detector.buffers()]
    with torch.autocast(distributed.device().type, enabled=False):
        # From a loader of its own: the training's is on its way.
        renew_statistics(detector, batches(), config, step)
        predicted = predict(detector, test_loader(results.images, config), results)
    for buffer, values in zip(detector.buffers(), kept, strict=True):
        buffer.copy_(values)
    figures: Mapping[str, float] = {}
    if distributed.rank() == 0:
        with tempfile.TemporaryDirectory() as folder:
            results.write(Path(folder), predicted.records)
            figures = results.measure(Path(folder)).values
    # Here the others wait for as long as that takes, not in an exchange between GPUs.
    return distributed.gather_objects(figures)[0]


def _build(
    config: DetectionConfig, library: Library, backbone: Path, images: InstanceSet
) -> Detector:
    torch.manual_seed(config.seed)
    detector = build_detector(library, config.model, backbone, head_of(config, images))
    if distributed.world() > 1:
        synchronise(detector)
    return detector


def head_of(config: DetectionConfig, images: InstanceSet) -> Head:
    """Return what a data set asks of a detector's heads."""
    keypoints = len(images.categories.keypoints) if config.model.keypoints else 0
    return Head(len(images.categories), keypoints)
