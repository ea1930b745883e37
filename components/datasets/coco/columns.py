"""Annotations of COCO's form in columns, filled while their file is parsed."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.datasets.coco.records import (
    LEAST_COORDINATES,
    SURFACE_FIELDS,
    SURFACE_NUMBERS,
    SURFACE_RANGES,
    SURFACE_SLACK,
    annotation_record,
    run_lengths,
)
from components.datasets.fields import Refusal
from components.datasets.instances import Floats, SurfacePoints
from components.evaluation.body import COARSE_PARTS, FINE_PARTS, SIDE
from components.vision import rle
from components.vision.masks import Mask, PolygonMask, RunMask

TAKEN = "an annotation: it has an image_id"
"""What stands for an annotation where it was parsed."""

_SEPARATOR = " "  # no character of compressed run lengths
_DECIMALS = 3  # what single precision keeps of any coordinate below 4,096
_SURFACE = frozenset(SURFACE_FIELDS)
_UNFIT = (TypeError, ValueError, KeyError, OverflowError, AttributeError)


class Columns:
    """Annotations, a column for each field, in the order of the file.

    Rows are those that can be used; `numbers` has the place of each among all that were `seen`.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.faults: list[tuple[int, str, bool, object]] = []
        """Of those left out: number, message, whether only the shape is at fault, id."""
        self.numbers = array("q")
        self.ids = array("q")
        self.image_ids = array("q")
        self.category_ids = array("q")
        self.boxes = array("f")
        self.areas = array("f")
        self.crowd = array("B")
        self.keypoints: dict[int, array[float]] = {}
        self._runs: dict[int, rle.Runs] = {}
        self._run_sizes: dict[int, tuple[int, int]] = {}
        self._points = array("f")
        self._polygon_ends = array("q")
        self._mask_ends = array("q")
        self._surfaces: dict[int, tuple[Floats, str]] = {}

    def take(self, record: dict[str, Any]) -> object:
        """Take a JSON object if it is an annotation; return it if not."""
        if "image_id" not in record or "file_name" in record:
            return record
        try:
            self._append(record)
        except _UNFIT:
            self._undo()
            try:
                self._append(annotation_record(record))
            except Refusal as refusal:
                fault = (self.seen, str(refusal), refusal.shape, record.get("id"))
                self.faults.append(fault)
        self.seen += 1
        return TAKEN

    def _append(self, record: dict[str, Any]) -> None:
        """Append a row, or raise one of `_UNFIT` in the middle of it."""
        row = len(self.numbers)
        left, top, width, height = record["bbox"]
        crowd = record.get("iscrowd", 0)
        if not (width > 0 and height > 0 and crowd in (0, 1)):
            raise ValueError("not as most are")
        segmentation = record.get("segmentation") or ()
        if isinstance(segmentation, dict):
            self._run_sizes[row] = _size_of(segmentation)
            self._runs[row] = run_lengths(segmentation["counts"])
        elif segmentation:
            whole = [
                polygon
                for polygon in segmentation
                if len(polygon) >= LEAST_COORDINATES and len(polygon) % 2 == 0
            ]
            if not whole:
                raise ValueError("no polygon that has an area")
            for polygon in whole:
                self._points.extend(polygon)
                self._polygon_ends.append(len(self._points))
        self._mask_ends.append(len(self._polygon_ends))
        self.ids.append(record["id"])
        self.image_ids.append(record["image_id"])
        self.category_ids.append(record["category_id"])
        self.boxes.extend((left, top, width, height))
        self.areas.append(record.get("area", width * height))
        self.crowd.append(1 if crowd else 0)
        if "keypoints" in record:
            self.keypoints[row] = _visible(record["keypoints"])
        if not _SURFACE.isdisjoint(record):
            self._surfaces[row] = _surface(record)
        self.numbers.append(self.seen)

    def _undo(self) -> None:
        """Take back what was appended of a row that could not be."""
        row = len(self.numbers)
        for column in (self.ids, self.image_ids, self.category_ids, self.areas, self.crowd):
            del column[row:]
        del self.boxes[4 * row :]
        del self._mask_ends[row:]
        polygons = self._mask_ends[-1] if row else 0
        del self._polygon_ends[polygons:]
        del self._points[self._polygon_ends[-1] if polygons else 0 :]
        for known in (self._runs, self._run_sizes, self.keypoints, self._surfaces):
            known.pop(row, None)

    def boxes_of(self, rows: npt.NDArray[np.int64]) -> Floats:
        """Return left, top, width and height of rows, (N, 4), a copy."""
        boxes: Floats = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)[rows]
        return boxes

    def masked(self) -> npt.NDArray[np.bool_]:
        """Return which rows have a mask."""
        masked: npt.NDArray[np.bool_] = (
            np.diff(np.frombuffer(self._mask_ends, np.int64), prepend=0) > 0
        )
        masked[list(self._runs)] = True
        return masked

    def unbounded(self) -> Iterator[tuple[int, str]]:
        """Find rows with a number that is none, or that single precision does not hold."""
        boxes = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)
        for row in np.flatnonzero(~np.isfinite(boxes).all(1)).tolist():
            yield row, f"has bbox {boxes[row].tolist()} instead of four numbers"
        areas = np.frombuffer(self.areas, np.float32)
        for row in np.flatnonzero(~((areas >= 0) & np.isfinite(areas))).tolist():
            yield row, f"has area {areas[row]} instead of a number from 0"
        places = np.flatnonzero(~np.isfinite(np.frombuffer(self._points, np.float32)))
        polygon = np.searchsorted(np.frombuffer(self._polygon_ends, np.int64), places, "right")
        owners = np.searchsorted(np.frombuffer(self._mask_ends, np.int64), polygon, "right")
        for row in np.unique(owners).tolist():
            yield row, "has a polygon with a coordinate that is no number"
        for row, points in self.keypoints.items():
            if not np.isfinite(np.frombuffer(points, np.float32)).all():
                yield row, "has a keypoint whose place is no number"

    def outside(
        self, rows: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32]
    ) -> Iterator[tuple[int, str]]:
        """Find boxes that do not touch their image.

        Args:
            rows: To look at.
            sizes: Height and width of the image of each, (N, 2).
        """
        boxes = self.boxes_of(rows)
        ends = boxes[:, :2] + boxes[:, 2:]
        wrong = ((boxes[:, :2] >= sizes[:, ::-1]) | (ends <= 0)).any(1)
        for place in np.flatnonzero(wrong).tolist():
            height, width = sizes[place].tolist()
            (left, top), (right, bottom) = boxes[place, :2].tolist(), ends[place].tolist()
            yield (
                int(rows[place]),
                f"has a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), "
                f"outside of its image of {width}×{height} pixels",
            )

    def of_other_size(
        self, images: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32]
    ) -> Iterator[tuple[int, str]]:
        """Find run lengths that are not of their image.

        Args:
            images: The place of each row's image, -1 where it is not known.
            sizes: Height and width of the images, (N, 2).
        """
        for row, runs in self._runs.items():
            if images[row] < 0:
                continue
            size, said = sizes[images[row]].tolist(), list(self._run_sizes[row])
            total = int(runs.sum(dtype=np.int64))
            if said != size:
                yield row, f"has a mask of {said} pixels (height, width), its image is {size}"
            elif total != size[0] * size[1]:
                yield row, f"has a mask whose runs are {total} pixels, not {size[0] * size[1]}"

    def wrong_surfaces(self) -> list[int]:
        """Return rows whose DensePose has a mask of another size."""
        texts: list[str] = []
        owners: list[int] = []
        for row, (_, masks) in self._surfaces.items():
            shapes = [text for text in masks.split(_SEPARATOR) if text]
            texts += shapes
            owners += [row] * len(shapes)
        wrong = np.flatnonzero(rle.totals(texts) != SIDE**2)
        return sorted({owners[place] for place in wrong.tolist()})

    def masks(self, rows: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32]) -> Any:
        """Return what makes the mask of an instance of a set that has these rows."""
        points = np.frombuffer(self._points, np.float32).reshape(-1, 2)
        ends = np.frombuffer(self._polygon_ends, np.int64) // 2
        masks, runs = np.frombuffer(self._mask_ends, np.int64), self._runs

        def mask(image: int, instance: int) -> Mask:
            height, width = sizes[image].tolist()
            row = int(rows[instance])
            if row in runs:
                return RunMask(runs[row], height, width)
            first = int(masks[row - 1]) if row else 0
            starts = [
                int(ends[place - 1]) if place else 0 for place in range(first, int(masks[row]))
            ]
            stops = ends[first : int(masks[row])].tolist()
            corners = tuple(
                points[start:stop].astype(np.float64).round(_DECIMALS)
                for start, stop in zip(starts, stops, strict=True)
            )
            return PolygonMask(corners, height, width)

        return mask

    def surfaces(self, rows: npt.NDArray[np.int64]) -> Callable[[int], SurfacePoints | None]:
        """Return what makes the DensePose of an instance of a set that has these rows."""
        known = self._surfaces

        def surface(instance: int) -> SurfacePoints | None:
            row = int(rows[instance])
            if row not in known:
                return None
            (x, y, part, u, v), masks = known[row]
            return SurfacePoints(x, y, part.astype(np.int64), u, v, tuple(masks.split(_SEPARATOR)))

        return surface


def _size_of(segmentation: dict[str, Any]) -> tuple[int, int]:
    height, width = array("q", segmentation["size"])
    return height, width


def _visible(values: Sequence[float]) -> "array[float]":
    points = array("f", values)
    if len(points) % 3 or not {0, 1, 2}.issuperset(points[2::3]):
        raise ValueError("not keypoints")
    return points


def _surface(record: dict[str, Any]) -> tuple[Floats, str]:
    """Pack DensePose's fields: five rows of numbers, and one text for all masks."""
    columns = [array("f", record[field]) for field in SURFACE_NUMBERS]
    values = np.array([np.frombuffer(column, np.float32) for column in columns], np.float32)
    for row, field in enumerate(SURFACE_NUMBERS):
        most = SURFACE_RANGES.get(field)
        if most is not None:
            slack = SURFACE_SLACK * most
            inside = (values[row] >= -slack) & (values[row] <= most + slack)
        else:
            parts = values[row]
            inside = (parts >= 1) & (parts <= FINE_PARTS) & (parts == np.floor(parts))
        if not inside.all():
            raise ValueError("not a point on a surface")
    masks = [mask["counts"] if mask else "" for mask in record["dp_masks"]]
    if len(masks) > COARSE_PARTS:
        raise ValueError("too many masks")
    return values, _SEPARATOR.join(masks)
