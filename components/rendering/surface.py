"""The miniature's surface for DensePose: a flat sheet behind each digit, in 24 parts.

Parts are numbered and paired as those of SMPL's body are, so that code for people holds:
1 and 2 in the middle, 23 and 24 at the top, ten pairs at the sides, the odd one of a pair on the
left. A digit's sheet is the rectangle around its ink, before it is turned.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from components.evaluation.body import FINE_PARTS

SHEET = (1.0, 1.7)  # width and height, metres: the metric's scale is that of people
_GRID = 5  # vertices along each side of a part
_SIDE, _HEAD, _WAIST = 0.35, 0.2, 0.6  # width of a side; where the head and the chest end
# Rows of the left side from the top: the outer and the inner part, SMPL's limbs.
_ROWS = ((15, 17), (19, 21), (3, 5), (7, 9), (11, 13))
# Coarse part of each fine one; 0 is the ground.
COARSE = np.array(
    [0, 1, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 14]
)

Numbers = npt.NDArray[np.float64]


@cache
def rectangles() -> Numbers:
    """Return left, top, right and bottom of each part on the unit sheet, (24, 4)."""
    corners = np.zeros((FINE_PARTS, 4))
    corners[0] = (_SIDE, _HEAD, 1 - _SIDE, _WAIST)
    corners[1] = (_SIDE, _WAIST, 1 - _SIDE, 1)
    corners[22] = (_SIDE, 0, 0.5, _HEAD)
    for row, parts in enumerate(_ROWS):
        for column, part in enumerate(parts):
            left, top = column * _SIDE / 2, row / len(_ROWS)
            corners[part - 1] = (left, top, left + _SIDE / 2, top + 1 / len(_ROWS))
    for part in range(3, FINE_PARTS, 2):
        left, top, right, bottom = corners[part - 1]
        corners[part] = (1 - right, top, 1 - left, bottom)
    return corners


def locate(points: Numbers) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
    """Return the part (1 to 24), U and V of points (x, y) on the unit sheet, (N, 2)."""
    places = np.clip(points, 0, 1 - 1e-9)
    across, down, cells = _cells()
    column = np.searchsorted(across, places[:, 0], side="right") - 1
    row = np.searchsorted(down, places[:, 1], side="right") - 1
    part = cells[row, column]
    corners = rectangles()[part]
    u, v = np.clip((places - corners[:, :2]) / (corners[:, 2:] - corners[:, :2]), 0, 1).T
    return part + 1, u, v


@cache
def _cells() -> tuple[Numbers, Numbers, npt.NDArray[np.int64]]:
    """Cut the sheet at every part's edges; return where, and the part of each cell."""
    corners = rectangles()
    across, down = (np.unique(corners[:, side]) for side in (0, 1))
    middles = np.stack(np.meshgrid(_middles(across), _middles(down)), axis=-1)[:, :, None, :]
    inside = (middles >= corners[:, :2]) & (middles < corners[:, 2:])
    return across, down, np.argmax(inside.all(axis=-1), axis=-1)


def _middles(edges: Numbers) -> Numbers:
    middles: Numbers = (edges + np.append(edges[1:], 1)) / 2
    return middles


@cache
def vertices() -> tuple[npt.NDArray[np.int64], Numbers, Numbers, Numbers]:
    """Return part, U, V and place (metres, (N, 2)) of the sheet's vertices."""
    steps = np.linspace(0, 1, _GRID)
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps))
    corners = rectangles()[:, None, :]
    size = corners[..., 2:] - corners[..., :2]
    places = corners[..., :2] + np.stack([u, v], axis=1) * size
    part = np.repeat(np.arange(1, FINE_PARTS + 1), len(u))
    return part, np.tile(u, FINE_PARTS), np.tile(v, FINE_PARTS), places.reshape(-1, 2) * SHEET


def distances() -> npt.NDArray[np.float32]:
    """Return the distances of vertices i > j, at i * (i - 1) / 2 + j, metres.

    The sheet is flat, so the way along it is straight.
    """
    places = vertices()[3]
    row, column = np.tril_indices(len(places), -1)
    between: npt.NDArray[np.float32] = np.linalg.norm(places[row] - places[column], axis=1).astype(
        np.float32
    )
    return between


def mirroring() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where U and V of each part go in a mirror, (24, 256, 256), indexed by V and U."""
    v, u = np.meshgrid(np.arange(256) / 255, np.arange(256) / 255, indexing="ij")
    return np.tile(1 - u, (FINE_PARTS, 1, 1)), np.tile(v, (FINE_PARTS, 1, 1))
