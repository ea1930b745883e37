"""Checks iNaturalist 2018's layout: ROOT/train2018.json, ROOT/val2018.json and their images."""

from pathlib import Path

from components.vision.check.files import check_files
from components.vision.datasets.findings import Findings
from components.vision.image_sets import ImageSet, scan_inaturalist

PUBLISHED = {"categories": 8_142, "train images": 437_513, "val images": 24_426}


def check_inaturalist(root: Path, findings: Findings, decode: bool) -> None:
    """Check both annotation files, that they agree, and every image that they name."""
    found: list[ImageSet] = []
    for split in ("train", "val"):
        images = scan_inaturalist(root, split, findings)
        if images is None:
            continue
        found.append(images)
        categories = max(findings.counts.get("categories", 0), len(images.classes))
        findings.counts |= {"categories": categories, f"{split} images": len(images)}
        names = ((name, images.image_id(index), None) for index, name in enumerate(images.files))
        check_files(root, names, findings, decode=decode)
    if len(found) == 2:
        _check_agreement(found[0], found[1], findings)
    findings.compare(PUBLISHED, "iNaturalist 2018")


def _check_agreement(train: ImageSet, val: ImageSet, findings: Findings) -> None:
    """Labels are positions in the list of categories, so both splits need the same list."""
    if train.classes != val.classes:
        lone = sorted({*train.classes} ^ {*val.classes})
        told = f": {', '.join(lone[:5])}" if lone else ", in another order"
        findings.fault("val2018.json", f"has other categories than train2018.json{told}")
    shared = {*train.files}
    for index, name in enumerate(val.files):
        if name in shared:
            message = "the image is a training image, too"
            findings.fault("val2018.json", message, val.image_id(index))
