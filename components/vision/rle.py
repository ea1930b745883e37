"""COCO's run-length encoding of masks: column by column, runs of zeros and ones in turn.

Equal to pycocotools bit for bit, so that a mask means the same here and in the official metrics.
"""

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hotcoco import mask as masks

Pixels = npt.NDArray[np.bool_]
"""A mask, (height, width)."""
Runs = npt.NDArray[np.uint32]
"""Lengths of runs, (R,); the first is of zeros and may be 0."""

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
    outlines = (np.asarray(polygon, np.float64).ravel().tolist() for polygon in polygons)
    filled = [masks.fr_poly(outline, height, width) for outline in outlines]
    if not filled:
        return np.zeros((height, width), np.bool_)
    pixels: Pixels = masks.decode(masks.merge(filled)).astype(np.bool_)
    return pixels
