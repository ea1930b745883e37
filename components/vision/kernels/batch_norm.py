"""Batch norm over groups of images, with the ReLU and the sum that follow it, for GPUs.

Maps lie in channels-last memory, so that they are matrices of `rows` (one a pixel) and channels,
and a group of images is a block of neighbouring rows. Forward takes two passes: statistics of each
group and channel, then everything else; backward the same. Time does not grow with the number of
groups. Sums are made in an order that never changes: the same input gives the same bits.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096  # values that a program holds at a time
_WARPS = 4
_PROGRAMS = 1024  # that make statistics side by side: several on each multiprocessor
_MOST_PARTS = 256  # that the rows of a group are cut into
_AHEAD = tl.constexpr(3)  # tiles that are on their way while sums are made: memory is far


class Statistics(NamedTuple):
    """Mean of each group and channel, (groups, C), and 1 / deviation; float32."""

    mean: Tensor
    inverse: Tensor


def batch_norm(
    maps: Tensor,
    layer: torch.nn.BatchNorm2d,
    *,
    groups: int,
    momentum: float,
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    """Normalise, in training mode, with the statistics of each group of neighbouring images.

    Args:
        maps: (N, C, H, W), channels last; `groups` divides N.
        layer: Whose parameters are applied, and whose running statistics take in every group
            in turn.
        groups: Of images.
        momentum: Of each group.
        residual: Added afterwards; like `maps`.
        relu: Apply it last.
    """
    normalised: Tensor = _BatchNorm.apply(
        maps, residual, layer.weight, layer.bias, layer, groups, momentum, relu
    )
    return normalised


@torch.no_grad()
def batch_norm_in_evaluation(
    maps: Tensor, layer: torch.nn.BatchNorm2d, *, residual: Tensor | None, relu: bool
) -> Tensor:
    """Normalise with the running statistics; no gradient flows. Arguments as above."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    inverse = torch.rsqrt(layer.running_var + layer.eps)
    return _normalise(
        maps, residual, layer.weight, layer.bias, Statistics(layer.running_mean, inverse), 1, relu
    )


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        maps: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        layer: torch.nn.BatchNorm2d,
        groups: int,
        momentum: float,
        relu: bool,
    ) -> Tensor:
        statistics = _measure(maps, layer, groups, momentum)
        out = _normalise(maps, residual, weight, bias, statistics, groups, relu)
        # After a sum the sign of the output tells where the ReLU let something through; without
        # one, the input tells it, which is read anyway.
        kept = out if relu and residual is not None else None
        context.save_for_backward(maps, kept, weight, bias, *statistics)
        context.groups, context.relu = groups, relu
        context.has_residual = residual is not None
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, out, weight, bias, *statistics = context.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        own, of_residual, of_weight, of_bias = _differentiate(
            gradient,
            maps,
            out,
            weight,
            bias,
            Statistics(*statistics),
            groups=context.groups,
            relu=context.relu,
            has_residual=context.has_residual,
        )
        return own, of_residual, of_weight, of_bias, None, None, None, None


class _Cut(NamedTuple):
    """How the matrix of a map is dealt to programs."""

    rows: int  # of a group
    channels: int
    groups: int
    tile_rows: int
    tile_channels: int
    parts: int  # of each group's rows, for sums
    part_rows: int

    @classmethod
    def of(cls, maps: Tensor, groups: int) -> "_Cut":
        count, channels, height, width = maps.shape
        rows = count // groups * height * width
        tile_channels = min(128, triton.next_power_of_2(channels))
        tile_rows = _TILE // tile_channels
        blocks = groups * triton.cdiv(channels, tile_channels)
        parts = min(
            max(1, _PROGRAMS // blocks), max(1, triton.cdiv(rows, 4 * tile_rows)), _MOST_PARTS
        )
        part_rows = triton.cdiv(triton.cdiv(rows, parts), tile_rows) * tile_rows
        return cls(
            rows,
            channels,
            groups,
            tile_rows,
            tile_channels,
            triton.cdiv(rows, part_rows),
            part_rows,
        )

    @property
    def column_blocks(self) -> int:
        return int(triton.cdiv(self.channels, self.tile_channels))

    def sums(self, device: torch.device) -> Tensor:
        """Make room for two sums of each part, group and channel."""
        shape = (2, self.groups, self.parts, self.channels)
        return torch.empty(shape, dtype=torch.float32, device=device)

    def tiles(self) -> tuple[int, int, int]:
        return triton.cdiv(self.rows, self.tile_rows), self.column_blocks, self.groups


_SUMMING = 32  # channels of a program that adds parts up


def _measure(maps: Tensor, layer: torch.nn.BatchNorm2d, groups: int, momentum: float) -> Statistics:
    cut = _Cut.of(maps, groups)
    sums = cut.sums(maps.device)
    _sum_values[(cut.column_blocks, groups * cut.parts)](
        maps,
        sums,
        cut.rows,
        cut.channels,
        cut.parts,
        cut.part_rows,
        sums.stride(0),
        TILE_ROWS=cut.tile_rows,
        TILE_CHANNELS=cut.tile_channels,
        num_warps=_WARPS,
    )
    mean = torch.empty(groups, cut.channels, dtype=torch.float32, device=maps.device)
    inverse = torch.empty_like(mean)
    _make_statistics[(triton.cdiv(cut.channels, _SUMMING),)](
        maps,
        sums,
        mean,
        inverse,
        layer.running_mean,
        layer.running_var,
        layer.num_batches_tracked,
        cut.rows,
        cut.channels,
        groups,
        cut.parts,
        momentum,
        layer.eps,
        sums.stride(0),
        PARTS=triton.next_power_of_2(cut.parts),
        CHANNELS=_SUMMING,
    )
    return Statistics(mean, inverse)


def _normalise(
    maps: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    statistics: Statistics,
    groups: int,
    relu: bool,
) -> Tensor:
    cut = _Cut.of(maps, groups)
    out = torch.empty_like(maps, memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    _apply[cut.tiles()](
        maps,
        residual,
        out,
        *statistics,
        weight,
        bias,
        cut.rows,
        cut.channels,
        HAS_RESIDUAL=residual is not None,
        RELU=relu,
        TILE_ROWS=cut.tile_rows,
        TILE_CHANNELS=cut.tile_channels,
        num_warps=_WARPS,
    )
    return out


def _differentiate(
    gradient: Tensor,
    maps: Tensor,
    out: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    statistics: Statistics,
    *,
    groups: int,
    relu: bool,
    has_residual: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    cut = _Cut.of(maps, groups)
    sums = cut.sums(maps.device)
    flags: dict[str, Any] = {
        "RELU": relu,
        "BY_OUTPUT": out is not None,
        "TILE_ROWS": cut.tile_rows,
        "TILE_CHANNELS": cut.tile_channels,
        "num_warps": _WARPS,
    }
    _sum_gradients[(cut.column_blocks, groups * cut.parts)](
        gradient,
        maps,
        out,
        *statistics,
        weight,
        bias,
        sums,
        cut.rows,
        cut.channels,
        cut.parts,
        cut.part_rows,
        sums.stride(0),
        **flags,
    )
    means = torch.empty(2, groups, cut.channels, dtype=torch.float32, device=maps.device)
    of_weight, of_bias = torch.empty_like(weight), torch.empty_like(bias)
    _add_up_gradients[(triton.cdiv(cut.channels, _SUMMING),)](
        sums,
        means,
        of_weight,
        of_bias,
        cut.rows,
        cut.channels,
        groups,
        cut.parts,
        sums.stride(0),
        PARTS=triton.next_power_of_2(cut.parts),
        CHANNELS=_SUMMING,
    )
    own = torch.empty_like(maps, memory_format=torch.channels_last)
    # Without a ReLU in between, the residual's gradient is the one that came.
    masked = torch.empty_like(own) if has_residual and relu else None
    _apply_gradients[cut.tiles()](
        gradient,
        maps,
        out,
        *statistics,
        weight,
        bias,
        means,
        own,
        masked,
        cut.rows,
        cut.channels,
        groups,
        HAS_RESIDUAL=masked is not None,
        **flags,
    )
    of_residual = (masked if relu else gradient) if has_residual else None
    return own, of_residual, of_weight, of_bias


# Numbers that differ from layer to layer must not make a kernel of its own each.
_UNSPECIALISED = ["rows", "parts", "part_rows", "groups", "plane"]


@triton.jit(do_not_specialize=_UNSPECIALISED)  # type: ignore[untyped-decorator]
def _sum_values(  # type: ignore[no-untyped-def]
    maps,
    sums,
    rows,
    channels,
    parts,
    part_rows,
    plane,
    TILE_ROWS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """Add up values and their squares of a part of a group, as differences from its first row."""
    column = tl.program_id(0) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    group = tl.program_id(1) // parts
    part = tl.program_id(1) % parts
    start = maps + group.to(tl.int64) * rows * channels
    known = column < channels
    # Squares of values far from zero would lose the digits that a variance is made of.
    pivot = tl.load(start + column, mask=known, other=0.0).to(tl.float32)
    total = tl.zeros((TILE_ROWS, TILE_CHANNELS), tl.float32)
    square = tl.zeros((TILE_ROWS, TILE_CHANNELS), tl.float32)
    end = tl.minimum((part + 1) * part_rows, rows)
    for first in tl.range(part * part_rows, end, TILE_ROWS, num_stages=_AHEAD):
        row = first + tl.arange(0, TILE_ROWS)
        inside = (row < end)[:, None] & known[None, :]
        place = row[:, None].to(tl.int64) * channels + column[None, :]
        value = tl.load(start + place, mask=inside, other=0.0).to(tl.float32) - pivot[None, :]
        value = tl.where(inside, value, 0.0)
        total += value
        square += value * value
    place = (group * parts + part) * channels + column
    tl.store(sums + place, tl.sum(total, 0), mask=known)
    tl.store(sums + plane + place, tl.sum(square, 0), mask=known)


@triton.jit(do_not_specialize=_UNSPECIALISED)  # type: ignore[untyped-decorator]
def _make_statistics(  # type: ignore[no-untyped-def]
    maps,
    sums,
    mean_to,
    inverse_to,
    running_mean,
    running_var,
    batches,
    rows,
    channels,
    groups,
    parts,
    momentum,
    eps,
    plane,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Turn sums into statistics; the running ones take in each group in turn."""
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = column < channels
    part = tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & known[None, :]
    kept_mean = tl.load(running_mean + column, mask=known, other=0.0)
    kept_var = tl.load(running_var + column, mask=known, other=0.0)
    start = maps
    for group in range(groups):
        place = (group * parts + part[:, None]) * channels + column[None, :]
        total = tl.sum(tl.load(sums + place, mask=inside, other=0.0), 0)
        square = tl.sum(tl.load(sums + plane + place, mask=inside, other=0.0), 0)
        pivot = tl.load(start + column, mask=known, other=0.0).to(tl.float32)
        start += rows * channels
        shift = total / rows
        variance = tl.maximum(square / rows - shift * shift, 0.0)
        mean = pivot + shift
        tl.store(mean_to + group * channels + column, mean, mask=known)
        tl.store(inverse_to + group * channels + column, tl.rsqrt(variance + eps), mask=known)
        unbiased = variance * rows / (rows - 1)
        kept_mean += momentum * (mean - kept_mean)
        kept_var += momentum * (unbiased - kept_var)
    tl.store(running_mean + column, kept_mean, mask=known)
    tl.store(running_var + column, kept_var, mask=known)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=_UNSPECIALISED)  # type: ignore[untyped-decorator]
def _apply(  # type: ignore[no-untyped-def]
    maps,
    residual,
    out,
    mean,
    inverse,
    weight,
    bias,
    rows,
    channels,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    row = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    column = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    group = tl.program_id(2)
    known = column < channels
    inside = (row < rows)[:, None] & known[None, :]
    place = (group.to(tl.int64) * rows + row[:, None]) * channels + column[None, :]
    scale = tl.load(weight + column, mask=known, other=0.0).to(tl.float32)
    scale *= tl.load(inverse + group * channels + column, mask=known, other=0.0)
    shift = tl.load(bias + column, mask=known, other=0.0).to(tl.float32)
    shift -= tl.load(mean + group * channels + column, mask=known, other=0.0) * scale
    value = tl.load(maps + place, mask=inside, other=0.0).to(tl.float32)
    value = value * scale[None, :] + shift[None, :]
    if HAS_RESIDUAL:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        value = tl.maximum(value, 0.0)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _let_through(  # type: ignore[no-untyped-def]
    gradient, value, out, place, inside, scale, shift, RELU: tl.constexpr, BY_OUTPUT: tl.constexpr
):
    """Stop the gradient where the ReLU did."""
    if RELU:
        if BY_OUTPUT:
            positive = tl.load(out + place, mask=inside, other=0.0) > 0
        else:
            positive = value * scale[None, :] + shift[None, :] > 0
        gradient = tl.where(positive, gradient, 0.0)
    return gradient


@triton.jit(do_not_specialize=_UNSPECIALISED)  # type: ignore[untyped-decorator]
def _sum_gradients(  # type: ignore[no-untyped-def]
    gradient,
    maps,
    out,
    mean,
    inverse,
    weight,
    bias,
    sums,
    rows,
    channels,
    parts,
    part_rows,
    plane,
    RELU: tl.constexpr,
    BY_OUTPUT: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    """Add up a part's gradients, and their products with the normalised values."""
    column = tl.program_id(0) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    group = tl.program_id(1) // parts
    part = tl.program_id(1) % parts
    known = column < channels
    centre = tl.load(mean + group * channels + column, mask=known, other=0.0)
    spread = tl.load(inverse + group * channels + column, mask=known, other=0.0)
    scale = tl.load(weight + column, mask=known, other=0.0).to(tl.float32) * spread
    shift = tl.load(bias + column, mask=known, other=0.0).to(tl.float32) - centre * scale
    total = tl.zeros((TILE_ROWS, TILE_CHANNELS), tl.float32)
    product = tl.zeros((TILE_ROWS, TILE_CHANNELS), tl.float32)
    end = tl.minimum((part + 1) * part_rows, rows)
    start = group.to(tl.int64) * rows
    for first in tl.range(part * part_rows, end, TILE_ROWS, num_stages=_AHEAD):
        row = first + tl.arange(0, TILE_ROWS)
        inside = (row < end)[:, None] & known[None, :]
        place = (start + row[:, None]) * channels + column[None, :]
        value = tl.load(maps + place, mask=inside, other=0.0).to(tl.float32)
        flow = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        flow = _let_through(flow, value, out, place, inside, scale, shift, RELU, BY_OUTPUT)
        total += flow
        product += flow * (value - centre[None, :]) * spread[None, :]
    place = (group * parts + part) * channels + column
    tl.store(sums + place, tl.sum(total, 0), mask=known)
    tl.store(sums + plane + place, tl.sum(product, 0), mask=known)


@triton.jit(do_not_specialize=_UNSPECIALISED)  # type: ignore[untyped-decorator]
def _add_up_gradients(  # type: ignore[no-untyped-def]
    sums,
    means,
    of_weight,
    of_bias,
    rows,
    channels,
    groups,
    parts,
    plane,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Turn sums into the means of each group, and into the parameters' gradients."""
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = column < channels
    part = tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & known[None, :]
    bias = tl.zeros((CHANNELS,), tl.float32)
    weight = tl.zeros((CHANNELS,), tl.float32)
    for group in range(groups):
        place = (group * parts + part[:, None]) * channels + column[None, :]
        total = tl.sum(tl.load(sums + place, mask=inside, other=0.0), 0)
        product = tl.sum(tl.load(sums + plane + place, mask=inside, other=0.0), 0)
        tl.store(means + group * channels + column, total / rows, mask=known)
        tl.store(means + (groups + group) * channels + column, product / rows, mask=known)
        bias += total
        weight += product
    tl.store(of_bias + column, bias.to(of_bias.dtype.element_ty), mask=known)
    tl.store(of_weight + column, weight.to(of_weight.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=_UNSPECIALISED)  # type: ignore[untyped-decorator]
def _apply_gradients(  # type: ignore[no-untyped-def]
    gradient,
    maps,
    out,
    mean,
    inverse,
    weight,
    bias,
    means,
    own,
    masked,
    rows,
    channels,
    groups,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    BY_OUTPUT: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_CHANNELS: tl.constexpr,
):
    row = tl.program_id(0) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    column = tl.program_id(1) * TILE_CHANNELS + tl.arange(0, TILE_CHANNELS)
    group = tl.program_id(2)
    known = column < channels
    inside = (row < rows)[:, None] & known[None, :]
    place = (group.to(tl.int64) * rows + row[:, None]) * channels + column[None, :]
    centre = tl.load(mean + group * channels + column, mask=known, other=0.0)
    spread = tl.load(inverse + group * channels + column, mask=known, other=0.0)
    scale = tl.load(weight + column, mask=known, other=0.0).to(tl.float32) * spread
    shift = tl.load(bias + column, mask=known, other=0.0).to(tl.float32) - centre * scale
    total = tl.load(means + group * channels + column, mask=known, other=0.0)
    product = tl.load(means + (groups + group) * channels + column, mask=known, other=0.0)
    value = tl.load(maps + place, mask=inside, other=0.0).to(tl.float32)
    flow = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    flow = _let_through(flow, value, out, place, inside, scale, shift, RELU, BY_OUTPUT)
    if HAS_RESIDUAL:
        tl.store(masked + place, flow.to(masked.dtype.element_ty), mask=inside)
    normalised = (value - centre[None, :]) * spread[None, :]
    back = scale[None, :] * (flow - total[None, :] - normalised * product[None, :])
    tl.store(own + place, back.to(own.dtype.element_ty), mask=inside)
