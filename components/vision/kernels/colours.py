"""From a batch's bytes to what a backbone takes, colour operations included, for GPUs.

In torch each operation of each step is a pass over all pixels in float32; here a pixel is read
once, changed in registers and written once. Only the mean grey that a contrast needs is a pass
of its own before.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from components.vision.batch import Colours

_PIXELS = 1024  # of a program at a time
_PARTS = 8  # of an image, for its mean


def finish(pixels: Tensor, colours: Colours | None, scale: Tensor, shift: Tensor) -> Tensor:
    """Apply the colour operations of each view in its own order, then scale and shift channels.

    Args:
        pixels: RGB bytes, (N, 3, H, W), channels last, on a GPU.
        colours: Operations, the blur left out; None for none.
        scale: Of each channel, (3,), float32, on the GPU.
        shift: Of each channel, (3,), float32, on the GPU.

    Returns:
        (N, 3, H, W), float32, channels last.
    """
    count, _, height, width = pixels.shape
    size = height * width
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(pixels, dtype=torch.float32, memory_format=torch.channels_last)
    steps = colours.mix.shape[1] if colours else 0
    numbers = greys = None
    if colours and steps:
        hue = colours.hue.to(pixels.device, non_blocking=True)
        numbers = torch.cat([colours.mix, hue[..., None]], 2)
        greys = torch.empty(count, _PARTS, dtype=torch.float32, device=pixels.device)
        # The step that wants the mean: a jitter has one contrast at most.
        before = (colours.mix[..., 2] != 0).to(torch.int32).argmax(1).to(torch.int32)
        _sum_greys[(count, _PARTS)](
            pixels, numbers, before, greys, size, steps, PIXELS=_PIXELS, PARTS=_PARTS
        )
    _finish[(count, triton.cdiv(size, _PIXELS))](
        pixels,
        numbers,
        greys,
        scale,
        shift,
        out,
        size,
        steps,
        COLOURS=numbers is not None,
        PIXELS=_PIXELS,
        PARTS=_PARTS,
    )
    return out


@triton.jit
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    return red * 0.299 + green * 0.587 + blue * 0.114


@triton.jit
def _below(hue, offset):  # type: ignore[no-untyped-def]
    """How far a channel lies below the pixel's value, in chromas, 0 to 1."""
    position = hue + offset
    position -= 6.0 * tl.floor(position / 6.0)
    return tl.minimum(tl.maximum(tl.minimum(position, 4.0 - position), 0.0), 1.0)


@triton.jit
def _turn(red, green, blue, turns):  # type: ignore[no-untyped-def]
    """Turn the colour circle."""
    value = tl.maximum(red, tl.maximum(green, blue))
    chroma = value - tl.minimum(red, tl.minimum(green, blue))
    safe = tl.maximum(chroma, 1e-6)
    hue = tl.where(
        value == red,
        (green - blue) / safe,
        tl.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue += 6.0 * turns
    return (
        value - chroma * _below(hue, 5.0),
        value - chroma * _below(hue, 3.0),
        value - chroma * _below(hue, 1.0),
    )


@triton.jit
def _step(red, green, blue, numbers, grey):  # type: ignore[no-untyped-def]
    """Apply one operation; `grey` is the image's mean grey before it, if it wants that."""
    own = tl.load(numbers)
    constant = tl.load(numbers + 2) * grey + tl.load(numbers + 3)
    rest = tl.load(numbers + 1) * _luma(red, green, blue) + constant
    red = tl.minimum(tl.maximum(red * own + rest, 0.0), 255.0)
    green = tl.minimum(tl.maximum(green * own + rest, 0.0), 255.0)
    blue = tl.minimum(tl.maximum(blue * own + rest, 0.0), 255.0)
    turns = tl.load(numbers + 4)
    if turns != 0:
        red, green, blue = _turn(red, green, blue, turns)
    return red, green, blue


@triton.jit(do_not_specialize=["size", "steps"])  # type: ignore[untyped-decorator]
def _sum_greys(  # type: ignore[no-untyped-def]
    pixels, numbers, before, greys, size, steps, PIXELS: tl.constexpr, PARTS: tl.constexpr
):
    """Add up the grey of a part of an image as it is before its contrast changes."""
    image = tl.program_id(0).to(tl.int64)
    first_steps = tl.load(before + image)
    part = tl.program_id(1)
    total = tl.zeros((PIXELS,), tl.float32)
    for first in range(part * PIXELS, size, PARTS * PIXELS):
        pixel = first + tl.arange(0, PIXELS)
        inside = pixel < size
        place = pixels + (image * size + pixel) * 3
        red = tl.load(place, mask=inside, other=0).to(tl.float32)
        green = tl.load(place + 1, mask=inside, other=0).to(tl.float32)
        blue = tl.load(place + 2, mask=inside, other=0).to(tl.float32)
        for step in range(first_steps):
            own = numbers + (image * steps + step) * 5
            red, green, blue = _step(red, green, blue, own, 0.0)
        total += tl.where(inside, _luma(red, green, blue), 0.0)
    tl.store(greys + image * PARTS + part, tl.sum(total, 0))


@triton.jit(do_not_specialize=["size", "steps"])  # type: ignore[untyped-decorator]
def _finish(  # type: ignore[no-untyped-def]
    pixels,
    numbers,
    greys,
    scale,
    shift,
    out,
    size,
    steps,
    COLOURS: tl.constexpr,
    PIXELS: tl.constexpr,
    PARTS: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < size
    place = (image * size + pixel) * 3
    red = tl.load(pixels + place, mask=inside, other=0).to(tl.float32)
    green = tl.load(pixels + place + 1, mask=inside, other=0).to(tl.float32)
    blue = tl.load(pixels + place + 2, mask=inside, other=0).to(tl.float32)
    if COLOURS:
        grey = tl.sum(tl.load(greys + image * PARTS + tl.arange(0, PARTS)), 0) / size
        for step in range(steps):
            own = numbers + (image * steps + step) * 5
            red, green, blue = _step(red, green, blue, own, grey)
    red = red * tl.load(scale) + tl.load(shift)
    green = green * tl.load(scale + 1) + tl.load(shift + 1)
    blue = blue * tl.load(scale + 2) + tl.load(shift + 2)
    tl.store(out + place, red, mask=inside)
    tl.store(out + place + 1, green, mask=inside)
    tl.store(out + place + 2, blue, mask=inside)
