"""A backbone with a linear classifier on its pooled features."""

import math
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.errors import ConfigError
from components.training.learner import Batch, Losses
from components.vision.backbones import Backbone, read_card
from components.vision.config import AugmentationConfig, EvaluationConfig


class Classifier(nn.Module):
    """What is trained: all of it, or only the head.

    It is called with a batch of `images`, (N, 3, H, W), and their `labels`, (N,).
    """

    def __init__(self, backbone: Backbone, classes: int, *, frozen: bool) -> None:
        """Put a new head on a backbone, drawn from torch's current random state.

        The head starts as in the released code of Sec. 4.1: weights from a normal
        distribution of deviation 0.01, biases 0.

        Args:
            backbone: Taken as it is, not copied.
            classes: Outputs of the head.
            frozen: Keep the backbone in evaluation mode and away from the optimiser.
        """
        super().__init__()
        self.backbone = backbone.requires_grad_(not frozen)
        self.frozen = frozen
        self.head = nn.Linear(backbone.num_features, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the parts, so that training and evaluation run the same code."""
        for module in self.children():
            module.compile(*args, **kwargs)

    def logits(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to a score for each class, (N, classes)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(images)
        scores: Tensor = self.head(features)
        return scores

    def forward(self, batch: Batch) -> Losses:
        """Return the cross-entropy, and the accuracy on the training batch in percent."""
        logits = self.logits(batch["images"]).float()
        labels = batch["labels"]
        accuracy = (logits.detach().argmax(1) == labels).float().mean() * 100
        return F.cross_entropy(logits, labels), {"training_top1": accuracy}


def moved_tensors(backbone: nn.Module, original: nn.Module) -> list[str]:
    """Name the tensors of a backbone, buffers included, that are not bit for bit the original's."""
    before = original.state_dict()
    after = backbone.state_dict()
    return [name for name in before if _bits(after[name]) != _bits(before[name])]


def check_normalisation(backbone: Path, **views: AugmentationConfig | EvaluationConfig) -> None:
    """Refuse to show a backbone images on another scale than it was trained on.

    Args:
        backbone: The artifact of the `convert` stage.
        **views: How images are shown, by the config's field.

    Raises:
        ConfigError: with the values to set.
    """
    card = read_card(backbone)
    for name, view in views.items():
        for field in ("mean", "std"):
            wanted = tuple(round(value / 255, 6) for value in getattr(card, field))
            given = getattr(view, field)
            if not all(map(partial(math.isclose, abs_tol=1e-4), given, wanted)):
                raise ConfigError(
                    f"{name}.{field} is {given}, but the backbone {backbone} was trained with "
                    f"{wanted}; set it to that"
                )


def _bits(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
