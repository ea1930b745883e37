"""COCO's run-length encoding of masks: column by column, runs of zeros and ones in turn.

Equal to pycocotools bit for bit, so that a mask means the same here and in the official metrics.
"""

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.bool_]
"""A mask, (height, width)."""
Runs = npt.NDArray[np.uint32]
"""Lengths of runs, (R,); the first is of zeros and may be 0."""

_GRID = 5  # a polygon's corners are rounded to fifths of a pixel
_BITS = 5  # of a number in each character
_MORE = 1 << _BITS  # set in a character if the number goes on
_FIRST_CHARACTER = 48


def encode(mask: Pixels) -> Runs:
    """Return the runs of a mask."""
    flat = np.asarray(mask, np.bool_).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    start = [0, 0] if flat.size and flat[0] else [0]
    return np.diff(np.concatenate([start, changes, [flat.size]])).astype(np.uint32)


def decode(runs: Runs, height: int, width: int) -> Pixels:
    """Return the mask of runs.

    Raises:
        ValueError: if the runs are not of this size.
    """
    total = int(runs.sum(dtype=np.int64))
    if total != height * width:
        raise ValueError(f"runs of {total} pixels for a mask of {width}×{height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def compress(runs: Runs) -> str:
    """Write runs as text: each less the last but one, five bits in a character."""
    counts = runs.tolist()
    characters = []
    for position, count in enumerate(counts):
        number = count - counts[position - 2] if position > 2 else count
        more = True
        while more:
            bits = number & (_MORE - 1)
            number >>= _BITS
            more = number != (-1 if bits & (_MORE >> 1) else 0)
            characters.append(_FIRST_CHARACTER + bits + (_MORE if more else 0))
    return bytes(characters).decode("ascii")


def uncompress(text: str) -> Runs:
    """Read runs from their text.

    Raises:
        ValueError: if it ends within a number, or has a character or a run that cannot be.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64)
    codes -= _FIRST_CHARACTER
    if not len(codes):
        return np.zeros(0, np.uint32)
    ends = codes & _MORE == 0
    if codes.min() < 0 or codes.max() >= 2 * _MORE or not ends[-1]:
        raise ValueError("not compressed run lengths")
    starts = np.flatnonzero(np.concatenate([[True], ends[:-1]]))
    lengths = np.diff(np.append(starts, len(codes)))
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & (_MORE - 1)) << _BITS * places, starts)
    negative = codes[ends] & (_MORE >> 1) != 0
    numbers[negative] -= 1 << _BITS * lengths[negative]
    for first in (1, 2):  # the differences start after the first three
        numbers[first::2] = np.cumsum(numbers[first::2])
    if numbers.min() < 0:
        raise ValueError("run lengths below zero")
    return numbers.astype(np.uint32)


def runs_of(lengths: Sequence[int]) -> Runs:
    """Return runs from a list of their lengths.

    Raises:
        TypeError: if one is no whole number.
        OverflowError: if one is below zero or over 32 bits.
    """
    return np.frombuffer(array("I", lengths), np.uint32)


def totals(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return how many pixels the runs of each text are, many texts at once, (N,); -1 if none.

    A text that cannot be read has -1, as an empty one has 0.
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends_of_texts = np.cumsum([len(data) for data in encoded], dtype=np.int64)
    sums = np.zeros(len(texts), np.int64)
    full = np.flatnonzero(np.diff(ends_of_texts, prepend=0))
    codes = np.frombuffer(b"".join(encoded), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not len(codes):
        return sums
    owner = np.repeat(np.arange(len(texts)), np.diff(ends_of_texts, prepend=0))
    last = np.zeros(len(codes), np.bool_)
    last[ends_of_texts[full] - 1] = True
    bad = np.unique(owner[(codes < 0) | (codes >= 2 * _MORE) | last & (codes & _MORE != 0)])

    ends = (codes & _MORE == 0) | last
    starts = np.flatnonzero(np.concatenate([[True], ends[:-1]]))
    lengths = np.diff(np.append(starts, len(codes)))
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & (_MORE - 1)) << np.minimum(_BITS * places, 60), starts)
    negative = codes[ends] & (_MORE >> 1) != 0
    numbers[negative] -= 1 << np.minimum(_BITS * lengths[negative], 60)
    of_text = owner[starts]
    first = np.searchsorted(of_text, full)  # of each text's numbers
    position = np.arange(len(numbers)) - np.repeat(first, np.diff(np.append(first, len(numbers))))
    # A number after the third is less its last but one: sums of every second number of a text.
    for parity, base in ((1, 1), (0, 2)):
        chain = np.flatnonzero((position % 2 == parity) & (position >= base))
        if not len(chain):
            continue
        added = np.cumsum(numbers[chain])
        begins = np.flatnonzero(position[chain] == base)
        before = np.where(begins > 0, added[begins - 1], 0)
        numbers[chain] = added - np.repeat(before, np.diff(np.append(begins, len(chain))))
    sums[full] = np.add.reduceat(numbers, first)
    sums[bad] = -1
    sums[np.unique(of_text[numbers < 0])] = -1
    return sums


def fill(polygons: Sequence[npt.NDArray[np.floating]], height: int, width: int) -> Pixels:
    """Return the pixels of one or more polygons, as the official metrics see them.

    Args:
        polygons: Corners (x, y) of each, (P, 2), pixels from the image's top left corner.
        height: Of the mask.
        width: Of the mask.
    """
    mask = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        mask |= _fill_one(polygon, height, width)
    return mask


def _fill_one(polygon: npt.NDArray[np.floating], height: int, width: int) -> Pixels:
    """Fill by even and odd: a column's pixels change at each crossing of the outline."""
    x, y = _outline(polygon)
    moved = np.flatnonzero(x[1:] != x[:-1])
    left, top = np.minimum(x[moved], x[moved + 1]), np.minimum(y[moved], y[moved + 1])
    middle = _GRID // 2
    column, offset = np.divmod(left - middle, _GRID)
    kept = (offset == 0) & (column >= 0) & (column < width)
    row = np.clip(-((middle - top[kept]) // _GRID), 0, height)
    changes = np.bincount(column[kept] * height + row, minlength=height * width)
    parity: Pixels = np.cumsum(changes[: height * width]) % 2 == 1
    return parity.reshape(width, height).T


def _outline(polygon: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int64], ...]:
    """Walk along a polygon's edges on the fine grid; return the points' x and y."""
    begin = np.trunc(_GRID * np.asarray(polygon, np.float64) + 0.5).astype(np.int64)
    end = np.roll(begin, -1, axis=0)
    extent = np.abs(end - begin)
    steps = extent.max(axis=1)
    flat = extent[:, 0] >= extent[:, 1]
    backwards = np.where(flat, begin[:, 0] > end[:, 0], begin[:, 1] > end[:, 1])
    low = np.where(backwards[:, None], end, begin)
    rise = np.where(backwards[:, None], begin - end, end - begin)
    across = np.where(flat, rise[:, 1], rise[:, 0])
    slope = across / np.maximum(steps, 1)

    edge = np.repeat(np.arange(len(begin)), steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    step = np.where(backwards[edge], steps[edge] - step, step)
    along = np.where(flat, low[:, 0], low[:, 1])[edge] + step
    beside = np.where(flat, low[:, 1], low[:, 0])[edge] + slope[edge] * step + 0.5
    beside = np.trunc(beside).astype(np.int64)
    return np.where(flat[edge], along, beside), np.where(flat[edge], beside, along)
