"""The work of the classification stages."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from components.classification.config import ClassificationConfig
from components.classification.evaluate import Evaluator, Predictions, write_predictions
from components.classification.model import Classifier, check_normalisation, moved_tensors
from components.core.errors import MocoError
from components.core.log import get_logger
from components.core.metrics import Metrics, write_metrics
from components.core.stage import Job
from components.datasets.loading import image_reader
from components.training import distributed
from components.training.history import History
from components.training.images import corrupt_images, rank_loader
from components.training.learner import Batch, Learner
from components.training.loop import train
from components.training.machine import check_machine
from components.vision.backbones import load_backbone, write_encoder
from components.vision.batch import Batch as Images
from components.vision.config import AugmentationConfig, EvaluationConfig
from components.vision.device import finish_views
from components.vision.image_sets import ImageSet
from components.vision.loading import Loader
from components.vision.shares import labelled

log = get_logger(__name__)

CURVES = ("loss", "training_top1", "top1", "top5", "validation_loss")


def run(job: Job[ClassificationConfig]) -> None:
    """Train a classifier, in as many processes as there are GPUs."""
    check_machine(job.config)
    check_normalisation(
        job.input("backbone"),
        augmentation=job.config.augmentation,
        evaluation=job.config.evaluation,
    )
    job.facts.update(distributed.launch(job.config.processes, classify, job))


def classify(job: Job[ClassificationConfig]) -> dict[str, Any]:
    """Train as one process of the training; rank 0 writes the outputs.

    Returns:
        Facts for the manifest.

    Raises:
        DataError: if the validation images have other classes than the training images.
        MocoError: if a frozen backbone has moved.
    """
    config, metrics = job.config, job.output("metrics")
    reader, data = image_reader(config.dataset), job.input("data")
    training, validation = reader.read_or_divide(data, config.held_out)
    training = labelled(training, config.labels, config.seed)
    config = config.fit(len(training))
    classifier = _build(config, job.input("backbone"), len(training.classes))
    loader = _loader(training, config.augmentation, config)
    evaluator = Evaluator(_loader(validation, config.evaluation, config), config.evaluation)
    learner = Learner(
        module=classifier,
        batches=loader,
        prepare=partial(_prepare, config.augmentation),
        evaluate=lambda _: evaluator.measure(classifier).figures(),
        evaluate_every=config.evaluate_every * loader.steps,
        uniform=True,
    )
    trained = train(
        learner,
        config,
        total_steps=config.epochs * loader.steps,
        state=job.state,
        identity=job.identity,
        output=metrics,
    )
    facts: dict[str, Any] = {"classes": len(training.classes), **trained.told}
    if config.frozen:
        facts["unmoved_encoder_tensors"] = check_unmoved(classifier, job.input("backbone"))
    # Training that had ended before an interruption has not been measured in this process.
    predictions = evaluator.latest or evaluator.measure(classifier)
    details: dict[str, Any] = {
        "classes": len(training.classes),
        "training_images": len(training),
        "epochs": config.epochs,
        "validation_images": len(validation),
        "evaluated_images": len(predictions.labels),
        "corrupt_images": corrupt_images(loader),
        "corrupt_validation_images": corrupt_images(evaluator.loader),
        **trained.told,
    }
    if distributed.rank() == 0:
        _write_model(classifier, config, job.output("model"))
        names = [validation.image_id(index) for index in range(len(validation))]
        write_predictions(metrics, predictions, validation.classes, names)
        write_metrics(metrics, _metrics(trained.history, predictions, details))
    return facts | {
        name: len(details[name]) for name in ("corrupt_images", "corrupt_validation_images")
    }


def check_unmoved(classifier: Classifier, backbone: Path) -> int:
    """Compare a frozen backbone, bit for bit, with the artifact that it was loaded from.

    Returns:
        How many tensors were compared, parameters and buffers.

    Raises:
        MocoError: if any differs, naming the first ones.
    """
    moved = moved_tensors(classifier.backbone, load_backbone(backbone))
    count = len(classifier.backbone.state_dict())
    if moved:
        raise MocoError(
            f"{len(moved)} of {count} tensors of the frozen encoder moved during training: "
            f"{', '.join(moved[:5])}{', ...' if len(moved) > 5 else ''}. The accuracy would not be "
            f"that of the features in {backbone}, so nothing was written. Remove the state folder "
            "and train again; if it repeats, this is a defect of the stage"
        )
    log.info("encoder unmoved", tensors=count)
    return count


def _build(config: ClassificationConfig, backbone: Path, classes: int) -> Classifier:
    loaded = load_backbone(backbone)
    torch.manual_seed(config.seed)
    return Classifier(loaded, classes, frozen=config.frozen)


def _loader(
    images: ImageSet, views: AugmentationConfig | EvaluationConfig, config: ClassificationConfig
) -> Loader:
    return rank_loader(images, views, config.loader, batch_size=config.batch_size, seed=config.seed)


def _prepare(augmentation: AugmentationConfig, raw: Images, device: torch.device, _: int) -> Batch:
    batch = raw.to(device)
    (images,) = finish_views(batch, augmentation)
    return {"images": images, "labels": batch.labels}


def _write_model(classifier: Classifier, config: ClassificationConfig, folder: Path) -> None:
    card = {
        "task": config.task,
        "classes": classifier.head.out_features,
        "epochs": config.epochs,
    }
    write_encoder(folder, classifier.backbone, classifier.head, card)


def _metrics(history: History, predictions: Predictions, details: dict[str, JsonValue]) -> Metrics:
    return Metrics(
        values=predictions.figures(),
        curves={name: curve for name in CURVES if (curve := history.curve(name))},
        details={
            **details,
            "note": "Accuracies are over the validation images that could be read.",
        },
    )
