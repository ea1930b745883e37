"""The optimiser of every training: SGD, with a weight decay of its own for normalisation."""

from typing import Any

import torch
from torch import nn

from components.training.config import TrainingConfig

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers of normalisation, synchronised batch norm included."""


def make_optimizer(
    module: nn.Module, config: TrainingConfig, norm_weight_decay: float | None = None
) -> torch.optim.Optimizer:
    """Return SGD over all parameters that learn.

    Args:
        module: What is trained, on its device.
        config: Rate, momentum and weight decay.
        norm_weight_decay: Of the parameters of normalisation, if other than the config's.
    """
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": learned}]
    if norm_weight_decay is not None:
        norms = (layer for layer in module.modules() if isinstance(layer, NORMS))
        own = {one for layer in norms for one in layer.parameters(recurse=False)}
        groups = [
            {"params": [one for one in learned if one not in own]},
            {
                "params": [one for one in learned if one in own],
                "weight_decay": norm_weight_decay,
            },
        ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.scaled_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
