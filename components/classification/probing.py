"""The work of the stage `probe`."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import JsonValue
from torch import Tensor

from components.classification.evaluate import TOP, Predictions, per_class, write_predictions
from components.classification.logistic import Regression, fit_regression
from components.classification.probe import ProbeConfig
from components.classification.stored import Features, read_features
from components.core.log import get_logger
from components.core.metrics import Metrics, write_metrics, write_per_class
from components.core.stage import Job
from components.training import distributed
from components.training.machine import device_name
from components.vision.neighbours import knn_predict
from components.vision.shares import Indices, hold_out, share_of_images

PATIENCE = 3  # weaker penalties in a row that do worse than the best, before no more are tried

log = get_logger(__name__)


@dataclass(frozen=True)
class _Split:
    """Features and classes of N images on the device, (N, D) and (N,)."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Tensor) -> "_Split":
        return _Split(self.features[chosen], self.labels[chosen])


def run(job: Job[ProbeConfig]) -> None:
    """Classify the validation features by what the training features teach."""
    config, folder = job.config, job.input("features")
    stored, validation = read_features(folder, "train"), read_features(folder, "val")
    owners = np.arange(len(stored.labels))
    chosen = share_of_images(owners, stored.labels, config.labels, config.seed, str(folder))
    training, queries = _on_device(stored, chosen), _on_device(validation)
    classes = stored.classes
    told: dict[str, JsonValue] = {
        "classes": len(classes),
        "training_images": len(training),
        "validation_images": len(queries),
        "precision": "fp32",
        "device": device_name(),
    }
    right = _vote(config, training, queries, len(classes))
    values = {"top1": _percent(right)}
    log.info("knn", **values)
    neighbours = min(config.neighbours, len(training))
    _write(job, "knn", values, told | {"neighbours": neighbours})
    columns = {"right": right.cpu()}
    write_per_class(job.output("knn"), per_class(queries.labels.cpu(), columns, classes))

    predictions, found = _regress(config, training, queries, len(classes))
    log.info("linear", l2=found["l2"], iterations=found["iterations"], **predictions.figures())
    _write(job, "linear", predictions.figures(), told | found)
    write_predictions(job.output("linear"), predictions, classes, validation.images)


def _write(
    job: Job[ProbeConfig], port: str, values: dict[str, float], details: dict[str, JsonValue]
) -> None:
    write_metrics(job.output(port), Metrics(values=values, details=details))


def _vote(config: ProbeConfig, training: _Split, queries: _Split, classes: int) -> Tensor:
    """Say of each query whether its neighbours name its class, (N,)."""
    predicted = knn_predict(
        F.normalize(queries.features, dim=1),
        F.normalize(training.features, dim=1),
        training.labels,
        classes=classes,
        neighbours=config.neighbours,
        temperature=config.temperature,
    )
    return predicted == queries.labels


def _regress(
    config: ProbeConfig, training: _Split, queries: _Split, classes: int
) -> tuple[Predictions, dict[str, JsonValue]]:
    """Classify by logistic regression; features are scaled in place, a million are 10 GB.

    Returns:
        The predictions, and how they were found.
    """
    mean = training.features.mean(0)
    training.features.sub_(mean)
    scale = torch.linalg.vector_norm(training.features) / training.features.numel() ** 0.5
    training.features.div_(scale.clamp(min=1e-12))
    queries.features.sub_(mean).div_(scale.clamp(min=1e-12))
    l2, tried = _choose_penalty(config, training, classes)
    fitted = fit_regression(
        training.features, training.labels, classes, l2, iterations=config.iterations
    )
    logits = fitted.logits(queries.features)
    probabilities, best = logits.softmax(1).topk(min(TOP, classes))
    predictions = Predictions(
        indices=torch.arange(len(queries)),
        labels=queries.labels.cpu(),
        classes=best.cpu(),
        probabilities=probabilities.cpu(),
        losses=F.cross_entropy(logits, queries.labels, reduction="none").cpu(),
    )
    return predictions, {
        "l2": l2,
        "held_out_top1": {f"{weight:g}": accuracy for weight, accuracy in tried},
        "iterations": fitted.iterations,
        "loss": fitted.loss,
    }


def _choose_penalty(
    config: ProbeConfig, training: _Split, classes: int
) -> tuple[float, list[tuple[float, float]]]:
    """Find the penalty that does best on a part that is held out, from the strongest on.

    Of equally good ones the strongest is taken. Where there is nothing to hold out, because
    no class has two images, it is the middle one.

    Returns:
        Its weight; the accuracies of all that were tried.
    """
    weights = sorted(config.l2, reverse=True)
    held = torch.from_numpy(hold_out(training.labels.cpu().numpy(), config.held_out, config.seed))
    if not held.any() or len(weights) == 1:
        return weights[len(weights) // 2], []
    held = held.to(training.labels.device)
    learned, judged = training.only(~held), training.only(held)
    tried: list[tuple[float, float]] = []
    fitted: Regression | None = None
    for l2 in weights:
        fitted = fit_regression(
            learned.features,
            learned.labels,
            classes,
            l2,
            iterations=config.iterations,
            start=None if fitted is None else fitted.weights,
        )
        right = fitted.logits(judged.features).argmax(1) == judged.labels
        tried.append((l2, _percent(right)))
        told = {"l2": l2, "held_out_top1": round(tried[-1][1], 2)}
        log.info("progress", done=len(tried), total=len(weights), unit="penalties", **told)
        best = max(accuracy for _, accuracy in tried)
        if all(accuracy < best for _, accuracy in tried[-PATIENCE:]):
            break
    return next(l2 for l2, accuracy in tried if accuracy == best), tried


def _on_device(stored: Features, chosen: Indices | None = None) -> _Split:
    features, labels = stored.pooled, stored.labels
    if chosen is not None:
        features, labels = features[chosen], labels[chosen]
    device = distributed.device()
    return _Split(
        torch.from_numpy(np.array(features)).to(device), torch.from_numpy(labels).to(device)
    )


def _percent(right: Tensor) -> float:
    return float(right.double().mean() * 100)
