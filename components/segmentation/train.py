"""The work of the stage: train, predict, measure."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import JsonValue

from components.core.stage import Job
from components.datasets.loading import segmentation_reader
from components.datasets.semantic import labelled_masks
from components.segmentation import SegmentationConfig
from components.segmentation.data import SegmentationBatch, crops, whole_images
from components.segmentation.measure import follow, predict, write_measured, write_predictions
from components.segmentation.model import FCN, ModelCard, normalised, write_model
from components.training import distributed
from components.training.images import corrupt_images
from components.training.learner import Batch, Learner
from components.training.loop import train
from components.training.machine import check_machine
from components.training.sync_batch_norm import synchronise
from components.vision.backbones import load_backbone, read_card


def run(job: Job[SegmentationConfig]) -> None:
    """Train an FCN, in as many processes as there are GPUs."""
    check_machine(job.config)
    job.facts.update(distributed.launch(job.config.processes, segment, job))


def segment(job: Job[SegmentationConfig]) -> dict[str, Any]:
    """Train as one process of the training; rank 0 writes the outputs.

    Returns:
        Facts for the manifest.
    """
    config = job.config
    reader = segmentation_reader(config.dataset)
    training, validation = reader.read_both(job.input("data"))
    training = labelled_masks(training, config.labels, config.seed)
    config = config.fit(len(training))
    fcn, card = _build(config, job.input("backbone"), training.classes)
    # After hours of training is too late to learn that there is nothing to measure on.
    for _ in whole_images(validation, config.loader).epoch():
        pass
    loader = crops(training, config, card.mean)
    trained = train(
        Learner(
            module=fcn,
            batches=loader,
            prepare=partial(_prepare, card),
            evaluate=lambda _: follow(fcn, card, validation, config),
            evaluate_every=-(-config.iterations // config.evaluations),
            evaluate_last=False,
            uniform=True,
        ),
        config,
        total_steps=config.iterations,
        state=job.state,
        identity=job.identity,
        output=job.output("metrics"),
    )
    predicted = predict(fcn, card, validation, config.loader, config.test_batch)
    corrupt = corrupt_images(loader)
    if distributed.rank() == 0:
        write_model(job.output("model"), fcn, card)
        write_predictions(job.output("predictions"), predicted)
        write_measured(
            job.output("metrics"),
            job.output("predictions"),
            validation,
            reader=reader,
            split=reader.validation,
            history=trained.history,
            training_images=len(training),
            iterations=config.iterations,
            corrupt_images=cast("list[JsonValue]", corrupt),
            **trained.told,
        )
    return {
        "classes": len(training.classes),
        "corrupt_images": len(corrupt),
        **trained.told,
    }


def _build(
    config: SegmentationConfig, backbone: Path, classes: tuple[str, ...]
) -> tuple[FCN, ModelCard]:
    loaded = load_backbone(backbone)
    wanted = read_card(backbone)
    card = ModelCard(
        architecture=loaded.architecture,
        mean=wanted.mean,
        std=wanted.std,
        dataset=config.dataset,
        classes=classes,
        channels=config.channels,
        iterations=config.iterations,
    )
    torch.manual_seed(config.seed)
    fcn = FCN(loaded, len(classes), config.channels)
    synchronise(fcn)
    return fcn, card


def _prepare(card: ModelCard, raw: SegmentationBatch, device: torch.device, _: int) -> Batch:
    batch = raw.to(device)
    return {"images": normalised(batch.images, card), "labels": batch.labels.long()}
