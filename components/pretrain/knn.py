"""The kNN monitor (Wu et al. 2018): how good features are without training anything on them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.training import distributed
from components.vision.config import EvaluationConfig
from components.vision.device import finish_views
from components.vision.loading import Loader
from components.vision.neighbours import knn_predict


@dataclass
class KnnMonitor:
    """Measures kNN accuracy of an encoder on a held-out set.

    Attributes:
        bank: Loader of the labelled training images.
        held_out: Loader of the images that are classified.
        classes: Number of classes.
        evaluation: How an image is shown to the encoder.
        neighbours: How many vote.
        temperature: Of the votes.
    """

    bank: Loader
    held_out: Loader
    classes: int
    evaluation: EvaluationConfig
    neighbours: int
    temperature: float

    def measure(self, encoder: nn.Module) -> float:
        """Return the top-1 accuracy in percent. Collective: each rank does its share."""
        distributed.share_buffers(encoder)
        bank, labels = (
            distributed.gather_varying(part) for part in self._embed(encoder, self.bank)
        )
        queries, truth = self._embed(encoder, self.held_out)
        predictions = knn_predict(
            queries,
            bank,
            labels,
            classes=self.classes,
            neighbours=self.neighbours,
            temperature=self.temperature,
        )
        right = distributed.gather_varying(predictions == truth)
        return float(right.float().mean() * 100)

    def _embed(self, encoder: nn.Module, loader: Loader) -> tuple[Tensor, Tensor]:
        """Return this rank's embeddings and labels."""
        device = distributed.device()
        features, labels = [], []
        for batch in loader.epoch(0):
            (views,) = finish_views(batch.to(device), self.evaluation)
            features.append(encoder(views).float())
            labels.append(batch.labels.to(device))
        return torch.cat(features), torch.cat(labels)
