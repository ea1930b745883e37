"""Reads annotation files of COCO's form, each annotation going into columns as it is parsed.

A file of 118,000 images becomes millions of Python objects if it is parsed first; here an
annotation's object is gone before the next is made.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.core.log import get_logger
from components.vision.datasets import rle
from components.vision.datasets.instances import (
    PARTS,
    Categories,
    Floats,
    InstanceSet,
    SurfacePoints,
    refuse_many,
)
from components.vision.datasets.masks import Mask, PolygonMask, RunMask
from components.vision.image_sets import Names

log = get_logger(__name__)

TOLERATED = 0.001  # of the annotations: train2017 has one box without area among 860,001
_SURFACE_FIELDS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
_SEPARATOR = " "  # no character of compressed run lengths
_DECIMALS = 3  # what single precision keeps of any coordinate below 4,096


class AnnotationFile:
    """What an annotation file of COCO's form holds, in columns.

    Attributes:
        path: The file.
        images: The records of its images, by ascending id.
    """

    def __init__(self, path: Path, kind: str) -> None:
        """Read the file.

        Args:
            path: The file.
            kind: What `moco data check` calls the layout.

        Raises:
            DataError: if it cannot be read, is not of COCO's form or without images, an
                annotation names an image or a category that is missing, or more
                annotations are faulty than the published sets have.
        """
        self.path = path
        self._kind = kind
        self._columns = _Columns()
        try:
            document = json.loads(path.read_bytes(), object_hook=self._columns.take)
            self.images = sorted(document["images"], key=lambda image: image["id"])
            self._categories = sorted(document["categories"], key=lambda one: one["id"])
            self._places = {image["id"]: place for place, image in enumerate(self.images)}
            self.labels = {one["id"]: label for label, one in enumerate(self._categories)}
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise DataError(
                f"{path} is not an annotation file of COCO's form: {type(error).__name__} {error}; "
                f"`moco data check {kind} {path.parent.parent}` lists every fault"
            ) from None
        if not self.images:
            raise DataError(f"{path} has no images: an empty split trains and measures nothing")
        faults = self._columns.faults
        refuse_many(path, faults, len(self._columns.ids) + len(faults), TOLERATED)
        if faults:
            log.warning("annotations left out", file=str(path), count=len(faults), first=faults[0])

    def instance_set(self, root: Path, files: Sequence[str], **more: Any) -> InstanceSet:
        """Bring the columns to the order of the images.

        Args:
            root: The folder that file names are relative to.
            files: File names in the order of `images`.
            **more: Further columns of `InstanceSet`.
        """
        columns = self._columns
        images = self._found(columns.image_ids, self._places, "image")
        labels = self._found(columns.category_ids, self.labels, "category")
        order = np.argsort(images, kind="stable")
        starts = np.zeros(len(self.images) + 1, np.int64)
        np.cumsum(np.bincount(images, minlength=len(self.images)), out=starts[1:])
        boxes = np.frombuffer(columns.boxes, np.float32).reshape(-1, 4)[order]
        boxes[:, 2:] += boxes[:, :2]
        sizes = np.array([(one["height"], one["width"]) for one in self.images], np.int32)
        return InstanceSet(
            root=root,
            files=Names(files),
            image_ids=np.array([image["id"] for image in self.images]),  # type: ignore[arg-type]
            sizes=sizes,
            starts=starts,
            boxes=boxes,
            labels=labels.astype(np.int32)[order],
            crowd=np.frombuffer(columns.crowd, np.bool_)[order],
            difficult=np.zeros(len(order), np.bool_),
            areas=np.frombuffer(columns.areas, np.float32)[order],
            ids=np.frombuffer(columns.ids, np.int64)[order],
            categories=self.categories(),
            mask=columns.masks(order, sizes),
            **more,
        )

    def categories(self) -> Categories:
        """Return the classes, by ascending id; ids may have gaps, as COCO's own have."""
        return Categories(
            names=tuple(str(one["name"]) for one in self._categories),
            ids=np.array([one["id"] for one in self._categories], np.int64),
            image_counts=np.array(
                [one["image_count"] for one in self._categories if "image_count" in one], np.int64
            ),
            frequencies=tuple(one["frequency"] for one in self._categories if "frequency" in one),
            keypoints=tuple(self._categories[0].get("keypoints", ())) if self._categories else (),
            skeleton=tuple(
                (first - 1, second - 1)
                for first, second in (self._categories or [{}])[0].get("skeleton", ())
            ),
        )

    def keypoints(self, images: InstanceSet) -> Floats:
        """Return the keypoints of the set's instances, (M, K, 3).

        Raises:
            DataError: if the categories name no keypoints, or an instance has another number.
        """
        names = images.categories.keypoints
        if not names:
            raise DataError(f"{self.path}: its categories name no keypoints")
        columns = self._columns
        wrong = [row for row, one in columns.keypoints.items() if len(one) != 3 * len(names)]
        if wrong:
            raise DataError(
                f"{self.path}: annotation {columns.ids[wrong[0]]} has "
                f"{len(columns.keypoints[wrong[0]]) / 3:g} keypoints, the category names "
                f"{len(names)}"
            )
        values = np.zeros((len(columns.ids), 3 * len(names)), np.float32)
        for row, one in columns.keypoints.items():
            values[row] = one
        keypoints = values.reshape(len(values), len(names), 3)
        keypoints[..., :2][keypoints[..., 2] > 0] += 0.5  # from pixel numbers to their centres
        return keypoints[columns.order(images.ids)]

    def surface(self, images: InstanceSet) -> Any:
        """Return what makes the DensePose of an instance of the set."""
        return self._columns.surfaces(self._columns.order(images.ids))

    def _found(
        self, ids: "array[int]", places: Mapping[Any, int], what: str
    ) -> npt.NDArray[np.int64]:
        try:
            return np.array([places[identity] for identity in ids], np.int64)
        except KeyError as error:
            row = next(row for row, one in enumerate(ids) if one not in places)
            raise DataError(
                f"{self.path}: annotation {self._columns.ids[row]} names {what} {error}, which "
                "the file does not have: it is of another version, or was cut; "
                f"`moco data check {self._kind} {self.path.parent.parent}` lists every fault"
            ) from None


class _Columns:
    """Annotations, a column for each field, in the order of the file."""

    def __init__(self) -> None:
        self.ids = array("q")
        self.image_ids = array("q")
        self.category_ids = array("q")
        self.boxes = array("f")
        self.areas = array("f")
        self.crowd = array("B")
        self.keypoints: dict[int, array[float]] = {}
        self.faults: list[str] = []
        self._runs: dict[int, rle.Runs] = {}
        self._points = array("f")
        self._polygon_ends = array("q")
        self._mask_ends = array("q")
        self._surfaces: dict[int, tuple[Floats, str]] = {}

    def take(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Take a JSON object if it is an annotation; return it if not."""
        if "image_id" not in record:
            return record
        left, top, width, height = record["bbox"]
        if not (width > 0 and height > 0):
            self._refuse(record, f"has a box of {width}×{height} pixels, without area")
            return None
        segmentation = record.get("segmentation") or []
        row = len(self.ids)
        if isinstance(segmentation, dict):
            self._runs[row] = _runs(segmentation)
        else:
            polygons = [one for one in segmentation if len(one) >= 6 and len(one) % 2 == 0]
            if segmentation and not polygons:
                corners = len(segmentation[0]) / 2
                self._refuse(record, f"has a polygon of {corners:g} points instead of 3")
                return None
            for polygon in polygons:
                self._points.extend(polygon)
                self._polygon_ends.append(len(self._points))
        self._mask_ends.append(len(self._polygon_ends))
        self.ids.append(record["id"])
        self.image_ids.append(record["image_id"])
        self.category_ids.append(record["category_id"])
        self.boxes.extend((left, top, width, height))
        self.areas.append(record.get("area", width * height))
        self.crowd.append(1 if record.get("iscrowd") else 0)
        if "keypoints" in record:
            self.keypoints[row] = array("f", record["keypoints"])
        if "dp_x" in record:
            self._surfaces[row] = _surface(record)
        return None

    def order(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of annotations in the order of a set, which names them by id."""
        own = np.frombuffer(self.ids, np.int64)
        sorter = np.argsort(own, kind="stable")
        return sorter[np.searchsorted(own, ids, sorter=sorter)]

    def masks(self, order: npt.NDArray[np.int64], sizes: npt.NDArray[np.int32]) -> Any:
        """Return what makes the mask of an instance."""
        points = np.frombuffer(self._points, np.float32).reshape(-1, 2)
        ends = np.frombuffer(self._polygon_ends, np.int64) // 2
        masks, runs = np.frombuffer(self._mask_ends, np.int64), self._runs

        def mask(image: int, instance: int) -> Mask:
            height, width = sizes[image].tolist()
            row = int(order[instance])
            if row in runs:
                return RunMask(runs[row], height, width)
            first = int(masks[row - 1]) if row else 0
            starts = [int(ends[one - 1]) if one else 0 for one in range(first, int(masks[row]))]
            stops = ends[first : int(masks[row])].tolist()
            polygons = tuple(
                points[start:stop].astype(np.float64).round(_DECIMALS)
                for start, stop in zip(starts, stops, strict=True)
            )
            return PolygonMask(polygons, height, width)

        return mask

    def surfaces(self, order: npt.NDArray[np.int64]) -> Any:
        """Return what makes the DensePose of an instance."""
        known = self._surfaces

        def surface(instance: int) -> SurfacePoints | None:
            row = int(order[instance])
            if row not in known:
                return None
            (x, y, part, u, v), masks = known[row]
            return SurfacePoints(x, y, part.astype(np.int64), u, v, tuple(masks.split(_SEPARATOR)))

        return surface

    def _refuse(self, record: dict[str, Any], fault: str) -> None:
        self.faults.append(f"annotation {record.get('id')} of image {record['image_id']} {fault}")


def _runs(segmentation: dict[str, Any]) -> rle.Runs:
    counts = segmentation["counts"]
    return rle.uncompress(counts) if isinstance(counts, str) else np.array(counts, np.uint32)


def _surface(record: dict[str, Any]) -> tuple[Floats, str]:
    """Pack DensePose's fields: five rows of numbers, and one text for all masks."""
    values = np.array([record[field] for field in _SURFACE_FIELDS], np.float32)
    masks = [one["counts"] if one else "" for one in record["dp_masks"]]
    if len(masks) > PARTS:
        raise ValueError(f"annotation {record['id']} has {len(masks)} dp_masks, not {PARTS}")
    return values, _SEPARATOR.join(masks)
