"""Shuffling batch norm (Sec. 3.3, Appendix A.9): which images share batch statistics is random.

With per-GPU batch norm a query and its positive key would share statistics, and the model could
match them by that signature alone. The keys' images are dealt anew to GPUs, and to the virtual
sub-batches in each, before they are encoded. All ranks know how, so each image travels once, as
bytes, before anything is computed of it: 7/8 of a share on 8 GPUs, where gathering all images as
float32 on every GPU would be 8 shares of four times the size.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from components.training.distributed import exchange, rank, world
from components.vision.batch import Batch, Colours

_STEPS = 5  # colour operations of a view, at most: four jitters and grayscale


def draw_order(count: int, seed: int) -> Tensor:
    """Draw who gets which images: a permutation of the global batch, (count,), the same everywhere.

    The first rank's share is of the images at its first places.
    """
    # On the CPU, whose generator gives the same numbers beside any GPU.
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def deal_view(raw: Batch, number: int, order: Tensor, device: torch.device) -> Batch:
    """Bring a batch to a device, one view of all ranks' images dealt anew. Collective.

    Args:
        raw: This rank's, in main memory.
        number: Of the view, whose colour operations are dealt with it.
        order: From `draw_order`, for the global batch.
        device: Where the batch goes.
    """
    batch = raw.to(device)
    views, colours = list(batch.views), list(batch.colours)
    pixels = views[number].permute(0, 2, 3, 1)  # as they lie in memory
    views[number] = deal(pixels, order).permute(0, 3, 1, 2)
    if colours and dist.is_initialized():
        colours[number] = _deal_colours(raw.colours[number], order, device)
    elif colours:
        own = colours[number]
        colours[number] = Colours(deal(own.mix, order), deal(own.hue, order), deal(own.blur, order))
    return replace(batch, views=tuple(views), colours=tuple(colours))


def deal(rows: Tensor, order: Tensor) -> Tensor:
    """Give this rank its share of all ranks' rows, in the order of `order`. Collective.

    Args:
        rows: This rank's, (N, ...).
        order: A permutation of all ranks' rows, (N * world,), on the CPU, the same on every rank.

    Returns:
        (N, ...).
    """
    if not dist.is_initialized():
        return rows[order.to(rows.device, non_blocking=True)]
    size = len(rows)
    owners = order // size
    wanted = owners[rank() * size : (rank() + 1) * size]
    # In `order` those who receive stand one after the other, as `exchange` wants what is sent.
    sent = owners == rank()
    arrived = exchange(
        rows[(order[sent] % size).to(rows.device, non_blocking=True)],
        sent.view(world(), size).sum(1).tolist(),
        torch.bincount(wanted, minlength=world()).tolist(),
    )
    # What arrives stands by sender; a stable sort of the senders tells for which place it is.
    places = torch.argsort(torch.argsort(wanted, stable=True))
    return arrived[places.to(rows.device, non_blocking=True)]


def _deal_colours(colours: Colours, order: Tensor, device: torch.device) -> Colours:
    """Deal the numbers of colour operations, which the processors talk about."""
    numbers = torch.cat([colours.mix, colours.hue[..., None]], 2)
    nothing = torch.tensor([1.0, 0, 0, 0, 0])
    missing = _STEPS - numbers.shape[1]  # views of other ranks may have more operations
    numbers = torch.cat([numbers, nothing.expand(len(numbers), missing, 5)], 1)
    numbers = deal(numbers, order)
    used = int((numbers != nothing).any(2).any(0).sum())
    mix, hue = numbers[:, :used].split((4, 1), dim=2)
    return Colours(
        mix=mix.contiguous().to(device, non_blocking=True),
        hue=hue[..., 0],
        blur=deal(colours.blur, order),
    )
