"""Evaluation of a classifier: accuracy, results of each class, and every single prediction."""

import json
from collections.abc import Iterator, Mapping, Sequence
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


def write_predictions(
    folder: Path, predictions: Predictions, classes: Sequence[str], images: Sequence[str]
) -> None:
    """Write `per_class.json` and `predictions.jsonl` into a metrics artifact.

    The former lists all classes in the order of their indices, which the latter uses.

    Args:
        folder: The artifact's.
        predictions: To write.
        classes: Names of the classes.
        images: What the data set calls each image of it.
    """
    columns = {"right": predictions.right(1), "right5": predictions.right(TOP)}
    write_per_class(folder, per_class(predictions.labels, columns, classes))
    rows = zip(
        predictions.indices.tolist(),
        predictions.labels.tolist(),
        predictions.classes.tolist(),
        predictions.probabilities.tolist(),
        strict=True,
    )
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as file:
        for index, label, best, probabilities in rows:
            row = {
                "image": images[index],
                "label": label,
                "classes": best,
                "probabilities": [round(probability, 5) for probability in probabilities],
            }
            file.write(json.dumps(row) + "\n")


def per_class(
    labels: Tensor, right: Mapping[str, Tensor], classes: Sequence[str]
) -> Iterator[dict[str, JsonValue]]:
    """Yield a row of `per_class.json` for each class.

    Args:
        labels: True classes of the images, (N,).
        right: Whether an image was classified rightly, (N,): `right`, and maybe `right5`.
        classes: Names of the classes.
    """

    def count(labels: Tensor) -> list[int]:
        return torch.bincount(labels, minlength=len(classes)).tolist()

    counts = {name: count(labels[of_class]) for name, of_class in right.items()}
    for label, (name, images) in enumerate(zip(classes, count(labels), strict=True)):
        row: dict[str, JsonValue] = {
            "class": name,
            "images": images,
            "right": counts["right"][label],
        }
        for column, top in (("right", "top1"), ("right5", "top5")):
            if column in counts:
                row[top] = 100 * counts[column][label] / images if images else None
        yield row


def _percent(right: Tensor) -> float:
    return float(right.double().mean() * 100)
