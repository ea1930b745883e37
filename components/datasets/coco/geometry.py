"""Reads DensePose's geometry: how a surface is mirrored, and how far its points are apart (A.3).

The published files describe SMPL's body and may not be passed on: whoever wants the numbers of
A.3 brings them. They are read as plain numbers; nothing in them is run.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.datasets.instances import Mirroring
from components.evaluation.body import FINE_PARTS, SIDE

GEOMETRY_FOLDERS = ("densepose", ".", "annotations")
"""Below COCO's folder, where the files may lie."""
TRAINING_GEOMETRY = ("UV_symmetry_transforms.mat",)
EVALUATION_GEOMETRY = ("SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat", "Pdist_matrix.pkl")
GEOMETRY_SOURCE = (
    "get_densepose_uv.sh, get_DensePose_COCO.sh and get_eval_data.sh of facebookresearch/DensePose"
)


@dataclass(frozen=True)
class Geometry:
    """The surface's vertices and how far they are apart.

    Attributes:
        u: Of each vertex, (V,).
        v: Of each vertex, (V,).
        part: Of each vertex, 1 to 24, (V,).
        place: Which row of the distances a vertex has, (V,), from 0.
        distances: Of rows i > j at i * (i - 1) / 2 + j, metres, (D,), float32.
    """

    u: npt.NDArray[np.float64]
    v: npt.NDArray[np.float64]
    part: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]

    def between(
        self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Return the distance of each pair of vertices, metres, (N,)."""
        start, end = self.place[first], self.place[second]
        high, low = np.maximum(start, end), np.minimum(start, end)
        far = self.distances[np.where(high == low, 0, high * (high - 1) // 2 + low)]
        return np.where(high == low, np.float32(0), far)


def geometry_folder(root: Path, files: tuple[str, ...], what_works: str) -> Path:
    """Find the folder with some of the files: ROOT/densepose, ROOT or ROOT/annotations.

    Args:
        root: COCO's folder.
        files: That are needed.
        what_works: What can be had without them, for the message.

    Raises:
        DataError: naming the files that are missing, where they come from, and what works.
    """
    folders = [root / name for name in GEOMETRY_FOLDERS]
    best = max(folders, key=lambda folder: sum((folder / name).is_file() for name in files))
    missing = [name for name in files if not (best / name).is_file()]
    if missing:
        raise DataError(
            f"{root}/densepose lacks {', '.join(missing)}, whose licence does not let us bring "
            f"them: fetch them with {GEOMETRY_SOURCE}. Without them, {what_works}"
        )
    return best


def read_mirroring(folder: Path) -> Mirroring:
    """Read UV_symmetry_transforms.mat.

    Raises:
        DataError: if it is not what DensePose publishes.
    """
    path = folder / TRAINING_GEOMETRY[0]
    content = _mat(path, ("U_transforms", "V_transforms"))
    try:
        u, v = (
            np.stack([np.asarray(cell, np.float32) for cell in content[name].ravel()])
            for name in ("U_transforms", "V_transforms")
        )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    if u.shape != (FINE_PARTS, SIDE, SIDE) or v.shape != u.shape:
        raise DataError(f"{path}: transforms of {u.shape}, not {(FINE_PARTS, SIDE, SIDE)}")
    return Mirroring(u, v)


def read_geometry(folder: Path) -> Geometry:
    """Read SMPL_subdiv.mat, SMPL_SUBDIV_TRANSFORM.mat and Pdist_matrix.pkl.

    Raises:
        DataError: if they are not what DensePose publishes, or do not fit together.
    """
    vertices, transform, matrix = (folder / name for name in EVALUATION_GEOMETRY)
    content = _mat(vertices, ("U_subdiv", "V_subdiv", "Part_ID_subdiv"))
    geometry = Geometry(
        u=np.asarray(content["U_subdiv"], np.float64).ravel(),
        v=np.asarray(content["V_subdiv"], np.float64).ravel(),
        part=np.asarray(content["Part_ID_subdiv"], np.int64).ravel(),
        place=np.asarray(_mat(transform, ("index",))["index"], np.int64).ravel() - 1,
        distances=read_distances(matrix),
    )
    lengths = {len(column) for column in (geometry.u, geometry.v, geometry.part, geometry.place)}
    if len(lengths) != 1 or not np.isin(geometry.part, np.arange(FINE_PARTS + 1)).all():
        raise DataError(f"{vertices} and {transform} do not fit together: fetch both again")
    rows = int(geometry.place.max()) + 1
    if geometry.place.min() < 0 or len(geometry.distances) < rows * (rows - 1) // 2:
        raise DataError(f"{matrix} has {len(geometry.distances)} distances, too few for {rows}")
    return geometry


def read_distances(path: Path) -> npt.NDArray[np.float32]:
    """Read Pdist_matrix.pkl, whose content is arrays of numbers by name.

    Raises:
        DataError: if it is damaged or names anything but arrays; nothing of it is run.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return np.asarray(content["Pdist_matrix"], np.float32).ravel()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle makes an unpickler raise anything
        raise DataError(
            f"{path} is refused, nothing of it was run ({type(error).__name__}: {error}): fetch "
            f"it again from {GEOMETRY_SOURCE}"
        ) from None


def _mat(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path, variable_names=names)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file makes it raise anything
        raise DataError(f"{path} is not a whole MAT file ({error}): fetch it again") from None
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}: it is another file than DensePose's")
    return content


class _Array:
    """Stands for an array that a pickle makes: it keeps numbers, and no object can be in it."""

    def __init__(self, *_: Any) -> None:
        self.values: npt.NDArray[Any] = np.zeros(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin1")
        values = np.frombuffer(data, dtype.known())
        self.values = values.reshape(shape[::-1]).T if fortran else values.reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.values, dtype)


class _Type:
    """Stands for the type of an array's numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in "<>" else "<"

    def known(self) -> np.dtype[Any]:
        if self.code not in ("f4", "f8"):
            raise pickle.UnpicklingError(f"an array of {self.code!r}, not of numbers")
        return np.dtype(f"{self.order}{self.code}")


def _new_array(*_: Any) -> _Array:
    return _Array()


def _encoded(text: Any, *_: Any) -> bytes:
    """Stand for how newer pickles of old protocols write bytes."""
    return str(text).encode("latin1")


_PERMITTED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _new_array for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    """Reads arrays of numbers; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PERMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside: {pid!r:.100}")
