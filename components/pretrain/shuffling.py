"""Batch norm of the paper's GPUs on however many there are: sub-batches, and shuffling them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.training.distributed import gather, rank, world


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
        groups = images.shape[0] // self.sub_batch
        if not self.training or groups <= 1:
            return super().forward(images)
        if images.shape[0] % self.sub_batch:
            raise ValueError(
                f"a batch of {images.shape[0]} cannot be split into sub-batches of {self.sub_batch}"
            )
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 - (1 - self.momentum) ** (1 / groups)
        return torch.cat(
            [
                F.batch_norm(
                    group,
                    self.running_mean,
                    self.running_var,
                    self.weight,
                    self.bias,
                    training=True,
                    momentum=momentum,
                    eps=self.eps,
                )
                for group in images.split(self.sub_batch)
            ]
        )


def use_sub_batches(module: nn.Module, sub_batch: int) -> None:
    """Give every 2-d batch norm of a module statistics of sub-batches, in place.

    Parameters, buffers and their names stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = SubBatchNorm2d
            layer.sub_batch = sub_batch  # type: ignore[assignment]


def shuffle_across_gpus(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Deal each GPU, and each virtual sub-batch in it, a random share of the global batch.

    With per-GPU batch norm a query and its positive key would share batch
    statistics, and the model could match them by that signature alone
    (Appendix A.9). Collective: every rank must call it with the same seed.

    Args:
        images: This rank's images, (N, 3, H, W).
        seed: Of this step's permutation; the ranks agree on it without a message.

    Returns:
        This rank's share, (N, 3, H, W), and the permutation that `unshuffle` needs,
        (N * world,).
    """
    everything = gather(images)
    # On the CPU, whose generator gives the same numbers beside any GPU.
    generator = torch.Generator().manual_seed(seed)
    permutation = torch.randperm(len(everything), generator=generator).to(
        images.device, non_blocking=True
    )
    return everything[_share(permutation, len(images))], permutation


def unshuffle(features: Tensor, permutation: Tensor) -> Tensor:
    """Undo `shuffle_across_gpus` for features, (N, D), of the images it returned. Collective."""
    return gather(features)[_share(torch.argsort(permutation), len(features))]


def _share(indices: Tensor, size: int) -> Tensor:
    """Return this rank's part of indices into the global batch, (N * world,) to (N,)."""
    return indices[rank() * size : (rank() + 1) * size] if world() > 1 else indices
