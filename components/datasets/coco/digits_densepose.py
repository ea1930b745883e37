"""DensePose's annotations of 2014 in COCO's layout, and the geometry of the miniature's surface."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import savemat

from components.datasets.coco.digits_records import (
    Record,
    annotation,
    image_record,
    keypoint_fields,
    person_category,
    write_document,
)
from components.evaluation.body import COARSE_PARTS, SIDE
from components.rendering.config import DigitsConfig
from components.rendering.pictures import Thing
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import real_digits
from components.rendering.surface import COARSE, distances, mirroring, vertices
from components.vision import rle
from components.vision.formats import Split


@dataclass(frozen=True)
class _Part:
    """A file of annotations: its name, the folder of its images, whose digits, how many."""

    name: str
    images: str
    split: Split
    share: float


# Training has pictures in both folders, as in A.3; only the last part is for measuring.
_PARTS = (
    _Part("train2014", "train2014", "train", 0.375),
    _Part("valminusminival2014", "val2014", "train", 0.125),
    _Part("minival2014", "val2014", "val", 0.5),
)
_POINTS = 60  # most of an instance
_STEP = 2  # of the part masks, coarser than their pixels and still finer than the pictures
_LEAST_SIDE = 16  # pixels of an instance that has points


def write(config: DigitsConfig, folder: Path) -> None:
    """Write the three splits, and the geometry in a folder of its own."""
    identity = 0
    for part in _PARTS:
        identity = _write_part(config, folder, part, identity)
    write_geometry(folder / "densepose")


def write_geometry(folder: Path) -> None:
    """Write the files that the originals come with, in their formats."""
    folder.mkdir(parents=True)
    u_cells, v_cells = np.empty((1, 24), object), np.empty((1, 24), object)
    for number, (u_map, v_map) in enumerate(zip(*mirroring(), strict=True)):
        u_cells[0, number], v_cells[0, number] = u_map, v_map
    _save(folder / "UV_symmetry_transforms.mat", {"U_transforms": u_cells, "V_transforms": v_cells})
    part, u, v, _ = vertices()
    columns = {"Part_ID_subdiv": part, "U_subdiv": u, "V_subdiv": v}
    _save(folder / "SMPL_subdiv.mat", {name: column[:, None] for name, column in columns.items()})
    _save(folder / "SMPL_SUBDIV_TRANSFORM.mat", {"index": np.arange(1.0, len(part) + 1)[:, None]})
    content = {"Pdist_matrix": distances()[:, None]}
    (folder / "Pdist_matrix.pkl").write_bytes(pickle.dumps(content, protocol=2))


def _save(path: Path, content: dict[str, object]) -> None:
    """Write a MAT file without the time that its header would name."""
    savemat(path, content, do_compression=True)
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, handwritten digits".ljust(116))


def _write_part(config: DigitsConfig, folder: Path, part: _Part, identity: int) -> int:
    """Write a part; ids go on after `identity`, and the last one is returned."""
    (folder / part.images).mkdir(exist_ok=True)
    size = config.pictures.train if part.split == "train" else config.pictures.val
    images: list[Record] = []
    annotations: list[Record] = []
    count = max(1, round(part.share * size))
    pictures = render_pictures(
        config, f"densepose/{part.name}", real_digits(part.split), count, crowds=True
    )
    for picture in pictures:
        identity += 1
        file = f"COCO_{part.images}_{identity:012d}.jpg"
        write_jpeg(config, picture, folder / part.images / file)
        images.append(image_record(picture, identity, file, part.images, file))
        for place, thing in enumerate(picture.things):
            record = annotation(thing, identity * 100 + place, identity, 1)
            record |= keypoint_fields(thing)
            left, top, right, bottom = thing.box
            if not thing.crowd and min(right - left, bottom - top) >= _LEAST_SIDE:
                generator = np.random.default_rng((config.seed, record["id"]))
                record |= surface_fields(thing, record["bbox"], generator)
            annotations.append(record)
    path = folder / "annotations" / f"densepose_{part.name}.json"
    write_document(
        path, f"handwritten digits, {part.name}", images, annotations, [person_category()]
    )
    return identity


def surface_fields(thing: Thing, box: Sequence[float], generator: np.random.Generator) -> Record:
    """Make the further fields of an instance: points on the surface, and masks of coarse parts."""
    left, top, width, height = box
    y, x = np.nonzero(thing.mask)
    chosen = np.sort(generator.permutation(len(x))[:_POINTS])
    points = np.stack([x[chosen], y[chosen]], axis=1).astype(np.float64) + 0.5
    part, u, v = thing.surface(points)
    return {
        "dp_x": ((points[:, 0] - left) / width * SIDE).round(2).tolist(),
        "dp_y": ((points[:, 1] - top) / height * SIDE).round(2).tolist(),
        "dp_I": part.astype(float).tolist(),
        "dp_U": u.round(6).tolist(),
        "dp_V": v.round(6).tolist(),
        "dp_masks": _part_masks(thing, box),
    }


def _part_masks(thing: Thing, box: Sequence[float]) -> list[Record | list[int]]:
    """Return compressed run lengths of each coarse part in the box, stretched to 256 × 256."""
    left, top, width, height = box
    steps = (np.arange(0, SIDE, _STEP) + _STEP / 2) / SIDE
    x, y = np.meshgrid(left + steps * width, top + steps * height)
    rows, columns = thing.mask.shape
    seen = thing.mask[
        np.clip(y.astype(np.int64), 0, rows - 1), np.clip(x.astype(np.int64), 0, columns - 1)
    ]
    shown = np.zeros(seen.shape, np.int64)
    shown[seen] = COARSE[thing.surface(np.stack([x[seen], y[seen]], axis=1))[0]]
    counts = np.bincount(shown.ravel(), minlength=COARSE_PARTS + 1)
    shown = shown.repeat(_STEP, axis=0).repeat(_STEP, axis=1)
    return [
        {"size": [SIDE, SIDE], "counts": rle.compress(rle.encode(shown == number))}
        if counts[number]
        else []
        for number in range(1, COARSE_PARTS + 1)
    ]
