"""Batch statistics for evaluation, computed anew over many batches with the final weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.training import distributed


class _Pool:
    """Mean and variance of each channel over all batches so far, in double precision."""

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm) -> None:
        device = distributed.device()
        self.layer = layer
        self.count = torch.zeros(1, dtype=torch.float64, device=device)
        self.sums = torch.zeros(2, layer.num_features, dtype=torch.float64, device=device)
        self.hook = layer.register_forward_pre_hook(self._add)

    def _add(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        values: Tensor = inputs[0].detach()
        if not values.numel():
            return
        count = values.numel() // values.shape[1]
        axes = [axis for axis in range(values.dim()) if axis != 1]
        variance, mean = torch.var_mean(values.float(), axes, correction=0)
        mean = mean.double()
        self.count += count
        self.sums += count * torch.stack([mean, variance.double() + mean**2])

    def finish(self) -> None:
        """Give the layer the statistics over all batches of all ranks. Collective."""
        if distributed.world() > 1:
            # Each rank has seen other images: left alone, their statistics would drift apart.
            dist.all_reduce(self.count)
            dist.all_reduce(self.sums)
        if not self.count:
            return
        mean, square = self.sums / self.count
        unbiased = (square - mean**2) * (self.count / (self.count - 1).clamp_min(1))
        assert self.layer.running_mean is not None
        assert self.layer.running_var is not None
        self.layer.running_mean.copy_(mean)
        self.layer.running_var.copy_(unbiased.clamp_min(0))


@torch.no_grad()
def recompute_statistics(
    module: nn.Module, batches: Iterable[Any], forward: Callable[[Any], object]
) -> int:
    """Replace the running statistics of batch norm by those over some training batches.

    Running averages lag behind weights that still move. Those of layers that are frozen
    stay. Every rank calls it, each with its own batches, equally many.

    Args:
        module: What the layers are in; it is in training mode afterwards.
        batches: Of training.
        forward: Shows the module a batch.

    Returns:
        How many layers have new statistics.
    """
    module.train()
    pools = [
        _Pool(layer)
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and layer.training
        and layer.track_running_stats
    ]
    try:
        for batch in batches if pools else ():
            forward(batch)
    finally:
        for pool in pools:
            pool.hook.remove()
    for pool in pools:
        pool.finish()
    return len(pools)
