"""Reads annotation files of COCO's form, each annotation going into columns as it is parsed.

A file of 118,000 images becomes millions of Python objects if it is parsed first; here an
annotation's object is gone before the next is made. What is as it should be takes a short way; all
else goes through `coco_records`, which mends it or says what is wrong with it.
"""

import itertools
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.datasets.coco.columns import TAKEN, Columns
from components.datasets.coco.records import annotation_record, category_record, image_record
from components.datasets.fields import Record, Refusal, shown
from components.datasets.findings import TOLERATED, Fault, Findings
from components.datasets.instances import (
    Categories,
    Floats,
    InstanceSet,
    SurfacePoints,
)
from components.datasets.records import read_lists, record_fault, usable_records
from components.evaluation.body import SIDE
from components.vision.image_sets import Names

_LISTS = ("images", "annotations", "categories")

FileOf = Callable[[Record], str]
"""Where an image's file is, relative to the data set's folder; raises Refusal."""


class AnnotationFile:
    """What an annotation file of COCO's form holds, in columns.

    Attributes:
        root: The data set's folder.
        name: Of the file, relative to it.
        findings: Where faults went.
        sound: Whether there is no fault in it.
        images: The records of its images, by ascending id; faulty ones are left out.
        files: Their files, relative to the folder.
        annotations: How many there are, faulty ones included.
    """

    def __init__(
        self, root: Path, name: str, findings: Findings, file_of: FileOf, *, people: bool = False
    ) -> None:
        """Read the file, and report all that is wrong with it.

        Args:
            root: The data set's folder.
            name: Of the file, relative to it.
            findings: Where faults go.
            file_of: Says where an image's file is.
            people: Whether its categories must name keypoints.
        """
        self.root, self.name, self.findings = root, name, findings
        self.images: list[Record] = []
        self.files: list[str] = []
        self.annotations = 0
        self._categories: list[Record] = []
        self._columns = Columns()
        self._refused: dict[str, set[int | None]] = {"image": set(), "category": set()}
        before = len(findings.faults)
        document = read_lists(root, name, _LISTS, findings, self._columns.take)
        if document is not None:
            self._take_images(document["images"], file_of)
            self._take_categories(document["categories"], people=people)
            self._take_annotations(document["annotations"], people=people)
        self.sound = len(findings.faults) == before

    def instance_set(self, **more: Any) -> InstanceSet:
        """Bring the columns to the order of the images.

        Args:
            **more: Further columns of `InstanceSet`.
        """
        assert self.sound, "what has faults is not read"
        columns, rows = self._columns, self._rows
        starts = np.zeros(len(self.images) + 1, np.int64)
        np.cumsum(np.bincount(self._image_places[rows], minlength=len(self.images)), out=starts[1:])
        boxes = columns.boxes_of(rows)
        boxes[:, 2:] += boxes[:, :2]
        sizes = self._sizes()
        return InstanceSet(
            root=self.root,
            files=Names(self.files),
            image_ids=np.array([image["id"] for image in self.images], np.int64),  # type: ignore[arg-type]
            sizes=sizes,
            starts=starts,
            boxes=boxes,
            labels=self._labels[rows].astype(np.int32),
            crowd=np.frombuffer(columns.crowd, np.bool_)[rows],
            difficult=np.zeros(len(rows), np.bool_),
            areas=np.frombuffer(columns.areas, np.float32)[rows],
            ids=_own_ids(np.frombuffer(columns.ids, np.int64)[rows]),
            categories=self.categories(),
            mask=columns.masks(rows, sizes),
            masked=columns.masked()[rows],
            **more,
        )

    def categories(self) -> Categories:
        """Return the classes, by ascending id; ids may have gaps, as COCO's own have."""
        known = self._categories
        first = known[0] if known else {}
        return Categories(
            names=tuple(category["name"] for category in known),
            ids=np.array([category["id"] for category in known], np.int64),
            image_counts=np.array(
                [category["image_count"] for category in known if "image_count" in category],
                np.int64,
            ),
            frequencies=tuple(
                category["frequency"] for category in known if "frequency" in category
            ),
            keypoints=tuple(first.get("keypoints", ())),
            skeleton=tuple((start - 1, end - 1) for start, end in first.get("skeleton", ())),
        )

    def category_records(self) -> Sequence[Record]:
        """Return the categories as the file has them, by ascending id."""
        return self._categories

    def classes_shown(self) -> npt.NDArray[np.int64]:
        """Return each image's place times the number of classes, plus each class that it shows."""
        pairs = self._image_places * len(self._categories) + self._labels
        return np.unique(pairs[self._rows])

    def unmasked(self) -> int:
        """Return how many instances have no mask."""
        return int((~self._columns.masked()[self._rows]).sum())

    def keypoints(self) -> Floats:
        """Return the keypoints of the set's instances, (M, K, 3); those not annotated are 0."""
        count = len(self.categories().keypoints)
        columns = self._columns
        values = np.zeros((len(columns.ids), 3 * count), np.float32)
        for row, points in columns.keypoints.items():
            values[row] = points
        keypoints = values.reshape(len(values), count, 3)
        keypoints[..., :2][keypoints[..., 2] > 0] += 0.5  # from pixel numbers to their centres
        return keypoints[self._rows]

    def surface(self) -> Callable[[int], SurfacePoints | None]:
        """Return what makes the DensePose of an instance of the set."""
        return self._columns.surfaces(self._rows)

    def fault(self, place: str, message: str, record: object = None) -> None:
        """Report a fault of a record, by its place in the file and by its id."""
        self.findings.faults.append(record_fault(self.name, place, message, record))

    def _take_images(self, records: Sequence[Any], file_of: FileOf) -> None:
        def usable(record: Any) -> Record:
            image = image_record(record)
            image["file"] = file_of(image)
            return image

        images = usable_records(
            self.name, "images", records, usable, self.findings, refused=self._refused["image"]
        )
        self.images = sorted(images, key=_by_id)
        self.files = [image["file"] for image in self.images]
        if not records:
            self.findings.fault(
                self.name, "has no images: an empty split trains and measures nothing"
            )

    def _take_categories(self, records: Sequence[Any], *, people: bool) -> None:
        categories = usable_records(
            self.name,
            "categories",
            records,
            category_record,
            self.findings,
            refused=self._refused["category"],
        )
        self._categories = sorted(categories, key=_by_id)
        if not records:
            self.findings.fault(self.name, "has no categories")
        for name, count in Counter(category["name"] for category in self._categories).items():
            if count > 1:
                self.findings.notes.append(f"{self.name}: {count} categories are called {name!r}")
        if not people:
            return
        # Exports put a category in front that groups the others, and that nothing is of.
        used = {*self._columns.category_ids}
        self._categories = [
            category
            for category in self._categories
            if category["keypoints"] or category["id"] in used
        ]
        points = {tuple(category["keypoints"]) for category in self._categories}
        if len(points) > 1 or not points or () in points:
            told = ", ".join(
                f"{category['name']} ({len(category['keypoints'])})"
                for category in self._categories[:5]
            )
            self.findings.fault(
                self.name,
                "needs categories that all name the same keypoints; what it has, with the number "
                f"of their keypoints: {told or 'none'}",
            )

    def _take_annotations(self, listed: list[Any], *, people: bool) -> None:
        """Find each annotation's image and class, report what is wrong, and order the rest."""
        columns, findings = self._columns, self.findings
        self.annotations = len(listed)
        places: Sequence[int] = range(len(listed))
        if listed.count(TAKEN) < len(listed) or columns.seen != len(listed):
            places = [place for place, record in enumerate(listed) if record is TAKEN]
            for place, record in enumerate(listed):
                if record is not TAKEN:
                    self.fault(f"annotations[{place}]", _why_not(record), record)
        if len(places) != columns.seen:
            message = "has records with an image_id outside of its list 'annotations'"
            findings.fault(self.name, message)
            return
        shapes: list[Fault] = []  # of those that published sets have a few of
        for number, message, shape, identity in columns.faults:
            fault = record_fault(self.name, f"annotations[{places[number]}]", message, identity)
            (shapes if shape else findings.faults).append(fault)

        def fault_of(row: int, message: str) -> Fault:
            place = f"annotations[{places[columns.numbers[row]]}]"
            return record_fault(self.name, place, message, columns.ids[row])

        self._image_places = _places(columns.image_ids, [image["id"] for image in self.images])
        self._labels = _places(
            columns.category_ids, [category["id"] for category in self._categories]
        )
        findings.faults += itertools.starmap(fault_of, self._wrong_rows(people=people))
        known = np.flatnonzero(self._image_places >= 0)
        outside = dict(columns.outside(known, self._sizes()[self._image_places[known]]))
        shapes += itertools.starmap(fault_of, outside.items())
        findings.tolerate(shapes, len(listed), TOLERATED)
        kept = np.ones(len(columns.ids), np.bool_)
        kept[list(outside)] = False
        rows = np.flatnonzero(kept)
        self._rows = rows[np.argsort(self._image_places[rows], kind="stable")]
        if _shared(np.frombuffer(columns.ids, np.int64)):
            findings.notes.append(f"{self.name}: annotations share ids, and are numbered anew")

    def _wrong_rows(self, *, people: bool) -> Iterator[tuple[int, str]]:
        """Find rows that cannot be used, and say why."""
        columns = self._columns
        for what, image_or_class, named in (
            ("image", self._image_places, columns.image_ids),
            ("category", self._labels, columns.category_ids),
        ):
            refused = self._refused[what]  # has been said, and of one it is not known which it is
            for row in np.flatnonzero(image_or_class < 0).tolist() if None not in refused else ():
                if named[row] not in refused:
                    yield row, f"names {what} {named[row]}, which does not exist"
        yield from columns.unbounded()
        yield from columns.of_other_size(self._image_places, self._sizes())
        if people:
            count = len(self._categories[0]["keypoints"]) if self._categories else 0
            for row, points in columns.keypoints.items():
                if len(points) != 3 * count:
                    yield row, f"has {len(points) // 3} keypoints, the category names {count}"
        for row in columns.wrong_surfaces():
            yield row, _OTHER_MASKS

    def _sizes(self) -> npt.NDArray[np.int32]:
        sizes = [(image["height"], image["width"]) for image in self.images]
        return np.array(sizes, np.int32).reshape(-1, 2)


_OTHER_MASKS = f"has dp_masks that are not run lengths of {SIDE}×{SIDE} pixels each"


def _by_id(record: Record) -> int:
    return int(record["id"])


def _why_not(record: object) -> str:
    """Say why a record in the list of annotations is none."""
    if not isinstance(record, dict):
        return f"is {shown(record)} instead of a JSON object"
    return "has a file_name: it is an image" if "image_id" in record else "has no image_id"


def _places(ids: "array[int]", known: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return where each id is among the known ones, which ascend; -1 if it is not there."""
    wanted, given = np.frombuffer(ids, np.int64), np.array(known, np.int64)
    if not len(given):
        return np.full(len(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(given, wanted), len(given) - 1)
    return np.where(given[places] == wanted, places, -1)


def _own_ids(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return ids of which no two are equal: exports may begin anew in each image."""
    return np.arange(1, len(ids) + 1) if _shared(ids) else ids


def _shared(ids: npt.NDArray[np.int64]) -> bool:
    ordered = np.sort(ids)
    return bool((ordered[1:] == ordered[:-1]).any())


def read_document(path: Path, *, people: bool = False) -> Record:
    """Read a file for a metric: its records as `AnnotationFile` takes them, as plain JSON values.

    Raises:
        DataError: if a record cannot be used.
    """
    document = json.loads(path.read_bytes())
    try:
        images = [image_record(record) for record in document["images"]]
        categories = [category_record(record) for record in document["categories"]]
        annotations = list(_measurable(document["annotations"], images))
    except Refusal as refusal:
        raise DataError(f"{path}: a record {refusal}") from None
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number  # its own, whatever the file says
        if people:
            count = max(len(category["keypoints"]) for category in categories)
            annotation.setdefault("keypoints", [0.0] * 3 * count)
            annotation["num_keypoints"] = sum(
                visible > 0 for visible in annotation["keypoints"][2::3]
            )
    return {**document, "images": images, "annotations": annotations, "categories": categories}


def _measurable(records: Sequence[Any], images: Sequence[Record]) -> Iterator[Record]:
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    for record in records:
        try:
            annotation = annotation_record(record)
        except Refusal as refusal:
            if not refusal.shape:
                raise
            continue
        (left, top, width, height), size = annotation["bbox"], sizes[annotation["image_id"]]
        if left < size[0] and top < size[1] and left + width > 0 and top + height > 0:
            yield annotation
