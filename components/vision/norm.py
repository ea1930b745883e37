"""Batch norm with what follows it in a ResNet, and with statistics of groups of images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.vision import kernels


class SubBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics of each virtual sub-batch.

    In training, images (N, C, H, W) are normalised in N / `sub_batch` groups of
    neighbours, as if each group were on a GPU of its own (Appendix A.9). In
    evaluation it is plain batch norm.

    The running statistics take in every group in turn; the momentum of one group
    is chosen so that the past fades by the usual amount in a whole step.
    """

    sub_batch: int = 0

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W); in training `sub_batch` must divide N."""
        groups = _groups(self, images)
        if not self.training or groups == 1:
            return super().forward(images)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if images.is_cuda:
            return _normalise_side_by_side(self, images, groups)
        return _normalise_in_turn(self, images, groups)


def use_sub_batches(module: nn.Module, sub_batch: int) -> None:
    """Give every 2-d batch norm of a module statistics of sub-batches, in place.

    Parameters, buffers and their names stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = SubBatchNorm2d
            layer.sub_batch = sub_batch  # type: ignore[assignment]


def normalise(
    layer: nn.Module, maps: Tensor, *, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """Apply a layer of normalisation, add a residual, apply a ReLU.

    On a recent GPU that is one operation, in as few passes over memory as there can be, for plain
    batch norm and that of sub-batches; its time does not grow with their number.

    Args:
        layer: Of normalisation, of any kind.
        maps: (N, C, H, W); its memory may be used for the result.
        residual: Of the same shape.
        relu: Whether negative values become zero.
    """
    if _has_kernel(layer, maps):
        assert isinstance(layer, nn.BatchNorm2d)
        if layer.training:
            from components.vision.kernels.batch_norm import batch_norm

            groups = _groups(layer, maps)
            momentum = _momentum(layer, groups)
            return batch_norm(
                maps, layer, groups=groups, momentum=momentum, residual=residual, relu=relu
            )
        if not torch.is_grad_enabled():
            from components.vision.kernels.batch_norm import batch_norm_in_evaluation

            return batch_norm_in_evaluation(maps, layer, residual=residual, relu=relu)
    maps = layer(maps)
    if residual is not None:
        maps += residual
    return F.relu(maps, inplace=True) if relu else maps


def _has_kernel(layer: nn.Module, maps: Tensor) -> bool:
    return (
        kernels.usable(maps)
        and isinstance(layer, nn.BatchNorm2d)
        and type(layer) in (nn.BatchNorm2d, SubBatchNorm2d)
        and layer.affine
        and layer.track_running_stats
        and not layer._forward_pre_hooks  # whoever listens has to be called
        and not layer._forward_hooks
        and maps.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and maps.is_contiguous(memory_format=torch.channels_last)
    )


def _groups(layer: nn.Module, images: Tensor) -> int:
    """Return how many groups of images have statistics of their own in training."""
    if not isinstance(layer, SubBatchNorm2d):
        return 1
    groups, rest = divmod(len(images), layer.sub_batch)
    if layer.training and groups and rest:
        raise ValueError(
            f"a batch of {len(images)} cannot be split into sub-batches of {layer.sub_batch}"
        )
    return max(1, groups)


def _momentum(layer: nn.BatchNorm2d, groups: int) -> float:
    """Return a group's momentum, with which all of a step move the statistics as one would."""
    assert layer.momentum is not None
    return float(1 - (1 - layer.momentum) ** (1 / groups))


def _normalise_in_turn(layer: nn.BatchNorm2d, images: Tensor, groups: int) -> Tensor:
    """Normalise group by group: the fastest way on a processor, and what the others are held to."""
    momentum = _momentum(layer, groups)
    return torch.cat(
        [
            F.batch_norm(
                group,
                layer.running_mean,
                layer.running_var,
                layer.weight,
                layer.bias,
                training=True,
                momentum=momentum,
                eps=layer.eps,
            )
            for group in images.chunk(groups)
        ]
    )


def _normalise_side_by_side(layer: nn.BatchNorm2d, images: Tensor, groups: int) -> Tensor:
    """Normalise all groups at once, each as channels of its own: for GPUs without the kernel."""
    channels, height, width = images.shape[1:]
    wide: Tensor = images.unflatten(0, (groups, -1)).transpose(0, 1)
    assert layer.running_mean is not None
    means = layer.running_mean.new_zeros(groups * channels)
    variances = torch.zeros_like(means)
    wide = F.batch_norm(
        wide.reshape(-1, groups * channels, height, width),
        means,
        variances,
        layer.weight.repeat(groups),
        layer.bias.repeat(groups),
        training=True,
        momentum=1.0,  # so that the statistics of this batch are what is left there
        eps=layer.eps,
    )
    with torch.no_grad():
        momentum = _momentum(layer, groups)
        shares = momentum * (1 - momentum) ** torch.arange(
            groups - 1, -1, -1, device=means.device, dtype=means.dtype
        )
        for running, own in ((layer.running_mean, means), (layer.running_var, variances)):
            assert running is not None
            running.mul_((1 - momentum) ** groups).add_(shares @ own.view(groups, channels))
    narrow: Tensor = wide.unflatten(1, (groups, channels)).transpose(0, 1)
    return narrow.reshape(images.shape)
