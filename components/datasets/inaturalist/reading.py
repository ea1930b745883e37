"""iNaturalist 2018's layout: ROOT/train2018.json, ROOT/val2018.json and their images."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from components.datasets.fields import file_name, labelled_record, named_record
from components.datasets.findings import Findings
from components.datasets.interface import ImageReader
from components.datasets.records import read_lists, usable_records
from components.vision.image_sets import ImageSet, Names


class Inaturalist(ImageReader):
    """ROOT/SPLIT2018.json; classes are sorted by category id."""

    title: ClassVar = "iNaturalist 2018"
    published: ClassVar = {"categories": 8_142, "train images": 437_513, "val images": 24_426}

    def scan(self, root: Path, split: str, findings: Findings) -> ImageSet | None:
        """Report what is wrong with a split's list, and return what can be used."""
        file = self.shown(split)
        before = len(findings.faults)
        lists = read_lists(root, file, ("images", "annotations", "categories"), findings)
        if lists is None:
            return None
        refused: set[int | None] = set()
        images = usable_records(
            file, "images", lists["images"], _image_record, findings, refused=refused
        )
        annotations = usable_records(
            file, "annotations", lists["annotations"], labelled_record, findings
        )
        categories = usable_records(file, "categories", lists["categories"], named_record, findings)
        categories.sort(key=lambda category: int(category["id"]))
        if not images:
            findings.fault(file, "has no images: an empty split trains and measures nothing")
        for name, count in Counter(image["file_name"] for image in images).items():
            if count > 1:
                findings.fault(file, f"{count} images are this file", name)
        labels = _labels_of(file, images, annotations, categories, findings, refused=refused)
        if split == "train" and len(findings.faults) == before:
            for label in sorted({*range(len(categories))} - {*labels}):
                message = "the category has no training image"
                findings.fault(file, message, categories[label]["id"])
        if not images:
            return None
        return ImageSet(
            root=root,
            files=Names(image["file_name"] for image in images),
            labels=np.array(labels, np.int32),
            classes=tuple(category["name"] for category in categories),
            ids=np.array([image["id"] for image in images], np.int64),  # type: ignore[arg-type]
        )

    def count(self, split: str, images: ImageSet, findings: Findings) -> None:
        """Say how much there is of a split."""
        categories = max(findings.counts.get("categories", 0), len(images.classes))
        findings.counts |= {"categories": categories, f"{split} images": len(images)}

    def shown(self, split: str) -> str:
        """Name the file of a split."""
        return f"{split}2018.json"


def _image_record(record: object) -> dict[str, Any]:
    image = labelled_record(record, ())
    image["file_name"] = file_name(image, "file_name")
    return image


def _labels_of(
    file: str,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]],
    findings: Findings,
    *,
    refused: set[int | None],
) -> list[int]:
    """Return the class index of each image; -1 where the annotations do not say one."""
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    known = {image["id"] for image in images}
    labels_by_image: dict[int, list[int]] = {}
    for annotation in annotations:
        if annotation["image_id"] not in known and not refused & {annotation["image_id"], None}:
            message = f"annotates image {annotation['image_id']}, which does not exist"
            findings.fault(file, message, annotation["id"])
        if annotation["category_id"] not in label_of:
            message = f"names category {annotation['category_id']}, which does not exist"
            findings.fault(file, message, annotation["id"])
        labels_by_image.setdefault(annotation["image_id"], []).append(
            label_of.get(annotation["category_id"], -1)
        )
    labels = []
    for image in images:
        own = labels_by_image.get(image["id"], [])
        if len(own) != 1:
            message = f"the image has {len(own)} annotations instead of one"
            findings.fault(file, message, image["id"])
        labels.append(own[0] if own else -1)
    return labels
