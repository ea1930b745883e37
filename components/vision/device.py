"""Colours, blur and normalisation of whole batches, on the device that trains."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from components.vision import kernels
from components.vision.batch import Batch, Colours
from components.vision.config import AugmentationConfig, EvaluationConfig

_LUMA = (0.299, 0.587, 0.114)


def finish_views(batch: Batch, config: AugmentationConfig | EvaluationConfig) -> tuple[Tensor, ...]:
    """Turn a batch's bytes into what a backbone takes, on the batch's device.

    Applies the colour operations and the blur that the loading processes left, each
    view with its own parameters in its own order, then normalises.

    Returns:
        One tensor for each view, float32, (N, 3, H, W); channels last where a GPU's kernel made it.
    """
    colours = batch.colours or (None,) * len(batch.views)
    return tuple(
        _finish_view(view, own, config) for view, own in zip(batch.views, colours, strict=True)
    )


def _finish_view(
    view: Tensor, colours: Colours | None, config: AugmentationConfig | EvaluationConfig
) -> Tensor:
    blurred = colours is not None and bool(colours.blur.any())
    if kernels.usable(view):
        from components.vision.kernels.colours import finish

        if not blurred:
            return finish(view, colours, *_affine(config.mean, config.std, view.device))
        pixels = finish(view, colours, *_affine((0.0,) * 3, (1 / 255,) * 3, view.device))
    else:
        pixels = view.to(torch.float32, memory_format=torch.contiguous_format)
        if colours is not None:
            pixels = adjust_colours(pixels, colours)
    if colours is not None:
        pixels = blur(pixels, colours.blur)
    return normalise(pixels, config.mean, config.std)


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Map RGB in 0..255 to zero mean and unit deviation, in place. `pixels`: (N, 3, H, W)."""
    scale, shift = _affine(mean, std, pixels.device)
    return pixels.mul_(scale.view(3, 1, 1)).add_(shift.view(3, 1, 1))


@functools.lru_cache(maxsize=8)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return factor and summand of each channel, (3,), for levels of 0..255."""
    scale = torch.tensor([1 / (255 * s) for s in std])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    return scale.to(device), shift.to(device)


def adjust_colours(pixels: Tensor, colours: Colours) -> Tensor:
    """Apply each view's colour operations in its own order.

    Args:
        pixels: RGB in 0..255, float, (N, 3, H, W), changed in place.
        colours: The operations of N views.
    """
    for step in range(colours.mix.shape[1]):
        own, gray, mean, constant = colours.mix[:, step].view(-1, 4, 1, 1, 1).unbind(1)
        luma = _luma(pixels)
        rest = gray * luma + (mean * luma.mean((2, 3), keepdim=True) + constant)
        pixels = pixels.mul_(own).add_(rest).clamp_(0, 255)

        # Which views turn their hue now is known on the CPU, so nothing waits for the device.
        rows = colours.hue[:, step].nonzero()[:, 0]
        if len(rows):
            turns = colours.hue[rows, step].to(pixels.device, non_blocking=True)
            rows = rows.to(pixels.device, non_blocking=True)
            pixels.index_copy_(0, rows, turn_hue(pixels.index_select(0, rows), turns))
    return pixels


def turn_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle of each image by its own amount.

    Args:
        pixels: RGB, (N, 3, H, W).
        turns: Fractions of the circle, (N,).
    """
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    # Sixths of the circle, counted from red; grey pixels have no hue, and any does.
    safe = chroma.clamp_min(1e-6)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turns.view(-1, 1, 1)
    turned = [value - chroma * _distance_from_plateau(hue, offset) for offset in (5, 3, 1)]
    return torch.stack(turned, 1)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian, edges repeated.

    Args:
        pixels: (N, C, H, W), changed in place where there is something to blur.
        sigma: Standard deviations in pixels, (N,), on the CPU; 0 leaves an image alone.
    """
    rows = sigma.nonzero()[:, 0]
    if not len(rows):
        return pixels
    radius = math.ceil(3 * float(sigma.max()))
    offsets = torch.arange(-radius, radius + 1)
    own = sigma[rows, None]
    # Each as wide as its own deviation wants, so that an image does not depend on its batch.
    weights = torch.exp(-0.5 * (offsets / own) ** 2) * (offsets.abs() <= (3 * own).ceil())
    weights = (weights / weights.sum(1, keepdim=True)).to(pixels.device, non_blocking=True)
    rows = rows.to(pixels.device, non_blocking=True)

    chosen = pixels.index_select(0, rows)
    count, channels, height, width = chosen.shape
    # Each channel of each image is a group with its own kernel.
    weights = weights.repeat_interleave(channels, 0)[:, None]
    flat = chosen.reshape(1, count * channels, height, width)
    flat = F.pad(flat, (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, weights[:, :, None, :], groups=count * channels)
    flat = F.conv2d(flat, weights[:, :, :, None], groups=count * channels)
    return pixels.index_copy_(0, rows, flat.view_as(chosen))


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = _LUMA
    return pixels[:, :1] * red + pixels[:, 1:2] * green + pixels[:, 2:] * blue


def _distance_from_plateau(hue: Tensor, offset: int) -> Tensor:
    """How far a channel lies below the pixel's value, in chromas, 0..1."""
    position = torch.remainder(hue + offset, 6)
    return torch.minimum(position, 4 - position).clamp(0, 1)
