"""Multinomial logistic regression with an L2 penalty, by L-BFGS on all samples at once."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1 << 16  # samples at a time: their probabilities of 1,000 classes are 256 MiB


@dataclass(frozen=True)
class Regression:
    """A classifier of features.

    Attributes:
        weights: Of the D features and of 1, (C, D + 1).
        loss: What was minimised: mean cross-entropy and penalty.
        iterations: How many it took.
    """

    weights: Tensor
    loss: float
    iterations: int

    def logits(self, features: Tensor) -> Tensor:
        """Map features, (N, D), to a score for each class, (N, C)."""
        return _logits(self.weights, features)


def fit_regression(
    features: Tensor,
    labels: Tensor,
    classes: int,
    l2: float,
    *,
    iterations: int = 500,
    start: Tensor | None = None,
) -> Regression:
    """Minimise mean cross-entropy plus `l2` / 2 times the squares of the weights, biases left out.

    Args:
        features: (N, D), of about unit size.
        labels: Classes, (N,).
        classes: C.
        l2: Weight of the penalty.
        iterations: At most.
        start: Weights to begin with, (C, D + 1); zeros by default.
    """
    shape = (classes, features.shape[1] + 1)
    weights = features.new_zeros(shape) if start is None else start.clone()
    weights.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights],
        max_iter=iterations,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def closure() -> Tensor:
        loss, weights.grad = _loss_and_gradient(weights, features, labels, l2)
        return loss

    optimiser.step(closure)
    told = optimiser.state[weights]
    loss = _loss_and_gradient(weights.detach(), features, labels, l2)[0]
    return Regression(weights.detach(), float(loss), int(told["n_iter"]))


def _loss_and_gradient(
    weights: Tensor, features: Tensor, labels: Tensor, l2: float
) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient, (C, D + 1); written out, it needs no graph in memory."""
    loss = weights.new_zeros((), dtype=torch.float64)
    gradient = torch.zeros_like(weights)
    for part, truth in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True):
        scores = _logits(weights, part).log_softmax(1)
        loss += F.nll_loss(scores, truth, reduction="sum").double()
        errors = scores.exp_()
        errors[torch.arange(len(truth), device=truth.device), truth] -= 1
        gradient[:, :-1] += errors.T @ part
        gradient[:, -1] += errors.sum(0)
    gradient /= len(features)
    gradient[:, :-1] += l2 * weights[:, :-1]
    penalty = weights[:, :-1].square().sum(dtype=torch.float64) * l2 / 2
    return (loss / len(features) + penalty).to(weights.dtype), gradient


def _logits(weights: Tensor, features: Tensor) -> Tensor:
    return torch.addmm(weights[:, -1], features, weights[:, :-1].T)
