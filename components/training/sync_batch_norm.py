"""Batch norm over the images of all processes, which fine-tuning tunes (Sec. 4.2, Appendix A.5)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.training import distributed


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics of the global batch, on processors.

    torch's own needs GPUs. In evaluation, and in a process alone, this is plain batch
    norm. In training its forward and its backward pass are collective.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise this rank's share, (N, C, H, W); N, H and W may differ between ranks."""
        if not self.training or distributed.world() == 1:
            return super().forward(images)
        mean, variance, count = self._global_statistics(images)
        with torch.no_grad():
            self._remember(mean, variance * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        normalised = images * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        return normalised.to(images.dtype)

    def _global_statistics(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and variance of each channel, (C,), and over how many values."""
        precision = torch.promote_types(images.dtype, torch.float32)
        variance, mean = torch.var_mean(images.to(precision), (0, 2, 3), correction=0)
        count = mean.new_full((1,), images.numel() / images.shape[1])
        # Every rank adds a row of its own to zeros, so that one exchange tells all of all.
        # Moments of each rank are put together, for sums of squares would lose digits.
        rows = mean.new_zeros((distributed.world(), 2 * self.num_features + 1))
        rows[distributed.rank()] = torch.cat([mean, variance, count])
        means, variances, counts = _Sum.apply(rows).split([self.num_features] * 2 + [1], dim=1)
        total = counts.sum().detach()
        share = counts.detach() / total
        mean = (share * means).sum(0)
        return mean, (share * (variances + (means - mean) ** 2)).sum(0), total

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class _Sum(torch.autograd.Function):
    """The sum over all ranks; as each rank's loss depends on it, so is its gradient."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def synchronise(module: nn.Module) -> nn.Module:
    """Give every batch norm of a module the statistics of the global batch.

    Parameters, buffers and their names stay as they are. On GPUs it is torch's own layer.

    Args:
        module: Changed in place, but for one that is a batch norm itself.

    Returns:
        The module to use from now on.
    """
    if distributed.device().type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return synchronised
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = SyncBatchNorm2d
    return module
