"""The optimiser of every training: SGD, with a weight decay of its own for normalisation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.training.config import TrainingConfig

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers of normalisation, synchronised batch norm included."""


def make_optimizer(
    module: nn.Module, config: TrainingConfig, norm_weight_decay: float | None = None
) -> torch.optim.Optimizer:
    """Return SGD over all parameters that learn.

    On a GPU it is one kernel, and its rate lies there, so that a captured step can be given
    another one.

    Args:
        module: What is trained, on its device.
        config: Rate, momentum and weight decay.
        norm_weight_decay: Of the parameters of normalisation, if other than the config's.
    """
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": learned}]
    if norm_weight_decay is not None:
        norms = (layer for layer in module.modules() if isinstance(layer, NORMS))
        own = {parameter for layer in norms for parameter in layer.parameters(recurse=False)}
        groups = [
            {"params": [parameter for parameter in learned if parameter not in own]},
            {
                "params": [parameter for parameter in learned if parameter in own],
                "weight_decay": norm_weight_decay,
            },
        ]
    on_gpu = learned[0].is_cuda
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=torch.tensor(config.scaled_lr, device=learned[0].device) if on_gpu else config.scaled_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=on_gpu or None,
    )
    if config.momentum:
        # Made now and laid out like the parameters: an update that fp16's scaler skips would
        # leave the fused kernel's own in whatever state memory was.
        for parameter in learned:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all parameters, without waiting for a device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def momenta(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return all that an optimiser remembers, in the order of its parameters."""
    return [
        optimizer.state[parameter]["momentum_buffer"]
        for group in optimizer.param_groups
        for parameter in group["params"]
        if optimizer.state[parameter]
    ]


def restore_momenta(optimizer: torch.optim.Optimizer, saved: Sequence[Tensor]) -> None:
    """Copy what `momenta` returned, on any device, into an optimiser of the same parameters."""
    for momentum, value in zip(momenta(optimizer), saved, strict=True):
        momentum.copy_(value)
