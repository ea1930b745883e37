"""Checks Cityscapes' layout: leftImg8bit and gtFine, each by split and city."""

from pathlib import Path

from components.vision.check.files import image_size
from components.vision.check.labels import check_labels
from components.vision.datasets.cityscapes import (
    city_stems,
    scan_cityscapes,
    scan_cityscapes_segmentation,
)
from components.vision.datasets.findings import Findings
from components.vision.datasets.layout import CITYSCAPES_IMAGE

PUBLISHED = {
    **{"train images": 2_975, "val images": 500},
    **{"train cities": 18, "val cities": 3},
}


def check_cityscapes(root: Path, findings: Findings, decode: bool) -> None:
    """Check that each image of training and validation has its instances and labels."""
    for split in ("train", "val"):
        _check_split(root, split, findings, decode)
    findings.compare(PUBLISHED, "Cityscapes with fine annotations")


def _check_split(root: Path, split: str, findings: Findings, decode: bool) -> None:
    instances = scan_cityscapes(root, split, findings)
    stems = city_stems(root / "leftImg8bit" / split, CITYSCAPES_IMAGE)
    findings.counts[f"{split} images"] = len(stems)
    findings.counts[f"{split} cities"] = len({stem.partition("/")[0] for stem in stems})
    if not stems:
        return
    check_labels(root, scan_cityscapes_segmentation(root, split, findings), findings, decode=decode)
    for index, stem in enumerate(stems if instances else ()):
        assert instances is not None
        size = image_size(Path(instances.path(index)))
        height, width = instances.sizes[index].tolist()
        if size and size != (width, height):
            findings.fault(
                f"gtFine/{split}/{stem}",
                f"has instances of {width}×{height} pixels, the image is {size[0]}×{size[1]}",
            )
