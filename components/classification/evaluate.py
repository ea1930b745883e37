"""Evaluation of a classifier: accuracy, results of each class, and every single prediction."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import JsonValue
from torch import Tensor

from components.classification.model import Classifier
from components.core.metrics import write_per_class
from components.training import distributed
from components.vision.config import EvaluationConfig
from components.vision.device import finish_views
from components.vision.image_sets import ImageSet
from components.vision.loading import Loader

TOP = 5
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of N images, in the order of their set.

    Attributes:
        indices: Positions in the image set, (N,).
        labels: True classes, (N,).
        classes: The most probable classes, the first one first, (N, K); K is 5, or the
            number of classes if there are fewer.
        probabilities: Theirs, (N, K).
        losses: Cross-entropy of each image, (N,).
    """

    indices: Tensor
    labels: Tensor
    classes: Tensor
    probabilities: Tensor
    losses: Tensor

    def right(self, top: int) -> Tensor:
        """Say for each image whether its class is among the `top` most probable, (N,)."""
        return (self.classes[:, :top] == self.labels[:, None]).any(1)

    def figures(self) -> dict[str, float]:
        """Return the accuracies in percent, and the mean loss."""
        return {
            "top1": _percent(self.right(1)),
            "top5": _percent(self.right(TOP)),
            "validation_loss": float(self.losses.double().mean()),
        }


class Evaluator:
    """Measures a classifier on the validation images.

    Images that cannot be read are left out, of the accuracy too, and the loader lists them.

    Attributes:
        latest: The predictions of the last measurement; None before the first.
    """

    def __init__(self, loader: Loader, evaluation: EvaluationConfig) -> None:
        """Remember what to measure on.

        Args:
            loader: This rank's share of the images, each once.
            evaluation: How an image is shown.
        """
        self.loader = loader
        self.evaluation = evaluation
        self.latest: Predictions | None = None

    @torch.no_grad()
    def measure(self, classifier: Classifier) -> Predictions:
        """Classify all images, in single precision. Collective: each rank does its share.

        Returns:
            The predictions for the images of all ranks, on every rank.
        """
        distributed.share_buffers(classifier)
        classifier.eval()
        device = distributed.device()
        with torch.autocast(device.type, enabled=False):
            shares = zip(*self._predict(classifier, device), strict=True)
            columns = [distributed.gather_varying(torch.cat(share)).cpu() for share in shares]
        order = columns[0].argsort()
        self.latest = Predictions(*(column[order] for column in columns))
        return self.latest

    def _predict(
        self, classifier: Classifier, device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the columns of `Predictions` for each batch; a rank's last may be empty."""
        for raw in self.loader.epoch(0):
            batch = raw.to(device)
            (images,) = finish_views(batch, self.evaluation)
            logits = classifier.logits(images)
            probabilities, classes = logits.softmax(1).topk(min(TOP, logits.shape[1]))
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
            yield batch.indices, batch.labels, classes, probabilities, losses


def write_predictions(folder: Path, predictions: Predictions, images: ImageSet) -> None:
    """Write `per_class.json` and `predictions.jsonl` into a metrics artifact.

    The former lists all classes in the order of their indices, which the latter uses.
    """
    write_per_class(folder, _per_class(predictions, images.classes))
    rows = zip(
        predictions.indices.tolist(),
        predictions.labels.tolist(),
        predictions.classes.tolist(),
        predictions.probabilities.tolist(),
        strict=True,
    )
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as file:
        for index, label, classes, probabilities in rows:
            row = {
                "image": images.image_id(index),
                "label": label,
                "classes": classes,
                "probabilities": [round(probability, 5) for probability in probabilities],
            }
            file.write(json.dumps(row) + "\n")


def _per_class(predictions: Predictions, names: tuple[str, ...]) -> Iterator[dict[str, JsonValue]]:
    def count(labels: Tensor) -> list[int]:
        return torch.bincount(labels, minlength=len(names)).tolist()

    labels = predictions.labels
    columns = (labels, labels[predictions.right(1)], labels[predictions.right(TOP)])
    for name, images, right1, right5 in zip(names, *map(count, columns), strict=True):
        yield {
            "class": name,
            "images": images,
            "right": right1,
            "top1": 100 * right1 / images if images else None,
            "top5": 100 * right5 / images if images else None,
        }


def _percent(right: Tensor) -> float:
    return float(right.double().mean() * 100)
