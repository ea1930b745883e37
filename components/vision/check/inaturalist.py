"""Checks iNaturalist 2018's layout: ROOT/train2018.json, ROOT/val2018.json and their images."""

from collections import Counter
from pathlib import Path

from components.vision.check.files import check_files
from components.vision.check.findings import Findings
from components.vision.check.records import (
    Record,
    read_records,
    record_size,
    repeated,
    report_repeated,
)

PUBLISHED = {"categories": 8_142, "train images": 437_513, "val images": 24_426}

_LISTS = {
    "images": ("id", "file_name"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id", "name"),
}


def check_inaturalist(root: Path, findings: Findings, decode: bool) -> None:
    """Check both annotation files, that they agree, and every image that they name."""
    documents: dict[str, dict[str, list[Record]]] = {}
    for split in ("train", "val"):
        document = read_records(root, f"{split}2018.json", _LISTS, findings)
        if document is not None:
            documents[split] = document
            _check_split(root, split, document, findings, decode)
    if len(documents) == 2:
        _check_agreement(documents["train"], documents["val"], findings)
    findings.compare(PUBLISHED, "iNaturalist 2018")


def _check_split(
    root: Path, split: str, document: dict[str, list[Record]], findings: Findings, decode: bool
) -> None:
    file = f"{split}2018.json"
    images, annotations, categories = (document[name] for name in _LISTS)
    findings.counts["categories"] = max(findings.counts.get("categories", 0), len(categories))
    findings.counts[f"{split} images"] = len(images)
    report_repeated(file, document, findings)
    for name, count in repeated(image["file_name"] for image in images):
        findings.fault(file, f"{count} images are this file", name)

    image_ids = {image["id"] for image in images}
    category_ids = {category["id"] for category in categories}
    labelled = Counter(annotation["image_id"] for annotation in annotations)
    for annotation in annotations:
        if annotation["image_id"] not in image_ids:
            message = f"annotates image {annotation['image_id']}, which does not exist"
            findings.fault(file, message, annotation["id"])
        if annotation["category_id"] not in category_ids:
            message = f"names category {annotation['category_id']}, which does not exist"
            findings.fault(file, message, annotation["id"])
    for image in images:
        if labelled[image["id"]] != 1:
            message = f"the image has {labelled[image['id']]} annotations instead of one"
            findings.fault(file, message, image["id"])
    used = {annotation["category_id"] for annotation in annotations}
    if split == "train":
        for identity in sorted(category_ids - used, key=str):
            findings.fault(file, "the category has no training image", identity)
    checked = ((str(image["file_name"]), image["id"], record_size(image)) for image in images)
    check_files(root, checked, findings, decode=decode)


def _check_agreement(
    train: dict[str, list[Record]], val: dict[str, list[Record]], findings: Findings
) -> None:
    """Labels are positions in the list of categories, so both splits need the same list."""
    names = {category["id"]: category["name"] for category in train["categories"]}
    others = {category["id"]: category["name"] for category in val["categories"]}
    for identity in sorted(names.keys() ^ others.keys(), key=str):
        has = "train2018.json" if identity in names else "val2018.json"
        findings.fault("val2018.json", f"only {has} has this category", identity)
    for identity in sorted(names.keys() & others.keys(), key=str):
        if names[identity] != others[identity]:
            message = f"is {names[identity]!r} in training and {others[identity]!r} here"
            findings.fault("val2018.json", message, identity)
    shared = {image["file_name"] for image in train["images"]}
    for image in val["images"]:
        if image["file_name"] in shared:
            findings.fault("val2018.json", "the image is a training image, too", image["id"])
