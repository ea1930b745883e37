"""Checks Cityscapes' layout: leftImg8bit and gtFine, each by split and city."""

from pathlib import Path

from components.vision.check.files import Boundary, check_files, image_fault, image_size
from components.vision.check.findings import Findings
from components.vision.datasets.layout import (
    CITYSCAPES_IMAGE,
    CITYSCAPES_INSTANCES,
    CITYSCAPES_LABELS,
)

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
    folder = root / "leftImg8bit" / split
    stems = _stems(folder, CITYSCAPES_IMAGE)
    findings.counts[f"{split} images"] = len(stems)
    findings.counts[f"{split} cities"] = len({stem.partition("/")[0] for stem in stems})
    if not stems:
        findings.fault(
            f"leftImg8bit/{split}", f"has no CITY/*{CITYSCAPES_IMAGE}: is the archive unpacked?"
        )
    labelled = _stems(root / "gtFine" / split, CITYSCAPES_LABELS)
    for stem in sorted(set(labelled) - set(stems)):
        name = f"gtFine/{split}/{stem}{CITYSCAPES_LABELS}"
        findings.fault(name, "has no image in leftImg8bit")
    images = [(f"leftImg8bit/{split}/{stem}{CITYSCAPES_IMAGE}", "", None) for stem in stems]
    check_files(root, images, findings, decode=decode)
    boundary = Boundary(root)
    for stem in stems:
        size = _size(folder / f"{stem}{CITYSCAPES_IMAGE}")
        for ending in (CITYSCAPES_INSTANCES, CITYSCAPES_LABELS):
            name = f"gtFine/{split}/{stem}{ending}"
            message = image_fault(root, boundary, name, size, decode=decode)
            if message:
                findings.fault(name, message.replace("the annotation says", "the image is"))


def _stems(folder: Path, ending: str) -> list[str]:
    """Return CITY/NAME of every file with an ending, sorted."""
    paths = sorted(folder.glob(f"*/*{ending}"))
    return [f"{path.parent.name}/{path.name.removesuffix(ending)}" for path in paths]


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except OSError:
        return None
