"""DensePose's body surface: vertices with their chart coordinates, and how far they are apart."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat
from scipy.spatial.distance import cdist

from components.core.errors import DataError
from components.evaluation.body import FINE_PARTS

CHARTS = "SMPL_subdiv.mat"
INDEX = "SMPL_SUBDIV_TRANSFORM.mat"
DISTANCES = "Pdist_matrix.pkl"
SOURCE = "https://dl.fbaipublicfiles.com/densepose/data"
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Surface:
    """Vertices of a surface in charts.

    Attributes:
        charts: By part, 1 to 24: U and V of its vertices, (N, 2), in [0, 1].
        vertices: By part: which vertex of the distances each is, (N,).
        distances: Geodesic distances in metres, of vertices i > j at i * (i - 1) / 2 + j.
    """

    charts: Mapping[int, Array]
    vertices: Mapping[int, Indices]
    distances: npt.NDArray[np.float32]

    def nearest(self, parts: Indices, uv: Array) -> Indices:
        """Return the vertex nearest to each point in its chart, (P,); -1 on no part.

        Args:
            parts: Part of each point, (P,); 0 is background.
            uv: Its chart coordinates, (P, 2).
        """
        nearest = np.full(len(parts), -1, np.int64)
        for part in self.charts:
            chosen = parts == part
            if chosen.any():
                index = cdist(self.charts[part], uv[chosen]).argmin(0)
                nearest[chosen] = self.vertices[part][index]
        return nearest

    def distance(self, first: Indices, second: Indices) -> Array:
        """Return the geodesic distances between vertices, (P,); infinite to no vertex."""
        high, low = np.maximum(first, second), np.minimum(first, second)
        apart = np.where((low >= 0) & (high != low), high * (high - 1) // 2 + low, 0)
        metres = self.distances[apart].astype(np.float64)
        return np.where(low < 0, np.inf, np.where(high == low, 0.0, metres))


def read_surface(folder: Path) -> Surface:
    """Read DensePose's evaluation files; the real distances take 1.5 GB of memory.

    Raises:
        DataError: if files are missing, with where they come from and what works without them,
            or if they are not DensePose's.
    """
    missing = [name for name in (CHARTS, INDEX, DISTANCES) if not (folder / name).is_file()]
    if missing:
        listed = ", ".join(f"{name} (from {SOURCE}/{name})" for name in missing)
        raise DataError(
            f"{folder} lacks {listed}: the SMPL body model's licence keeps them out of this "
            "project. Without them DensePose trains, its boxes are evaluated and its predictions "
            "are stored, to be evaluated later; its own AP needs all three"
        )
    try:
        charts, index = loadmat(folder / CHARTS), loadmat(folder / INDEX)
        parts = charts["Part_ID_subdiv"].ravel().astype(np.int64)
        uv = np.stack((charts["U_subdiv"].ravel(), charts["V_subdiv"].ravel()), 1)
        vertices = index["index"].ravel().astype(np.int64) - 1
        with (folder / DISTANCES).open("rb") as file:
            distances = _Arrays(file, encoding="latin1").load()["Pdist_matrix"].ravel()
    except (OSError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{folder} does not hold DensePose's files: {type(error).__name__} {error}; "
            f"fetch {CHARTS}, {INDEX} and {DISTANCES} again from {SOURCE}"
        ) from None
    _check(folder, parts, uv, vertices, distances)
    numbers = range(1, FINE_PARTS + 1)
    return Surface(
        charts={part: uv[parts == part].astype(np.float64) for part in numbers},
        vertices={part: vertices[parts == part] for part in numbers},
        distances=distances,
    )


def _check(
    folder: Path, parts: Indices, uv: Array, vertices: Indices, distances: npt.NDArray[Any]
) -> None:
    number = int(vertices.max()) + 1 if vertices.size else 0
    pairs = number * (number - 1) // 2
    if not len(parts) == len(uv) == len(vertices):
        fault = f"{CHARTS} has {len(parts):,} vertices, {INDEX} {len(vertices):,}"
    elif not set(range(1, FINE_PARTS + 1)) <= set(parts.tolist()):
        fault = f"{CHARTS} lacks some of the {FINE_PARTS} parts"
    elif len(distances) < pairs:
        fault = f"{DISTANCES} has {len(distances):,} distances; {number:,} vertices need {pairs:,}"
    else:
        return
    raise DataError(f"{folder} does not hold DensePose's files: {fault}")


class _Arrays(pickle.Unpickler):
    """Reads arrays and nothing else, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) in {
            ("numpy", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")
