"""Checks ImageNet's layout: ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG."""

from collections import Counter
from pathlib import Path

from components.vision.check.files import check_files
from components.vision.datasets.findings import Findings
from components.vision.formats import Split
from components.vision.image_sets import ImageSet, scan_imagenet

PUBLISHED = {"train classes": 1000, "train images": 1_281_167, "val images": 50_000}
_CLASS_SIZES: dict[Split, tuple[int, int]] = {"train": (732, 1300), "val": (50, 50)}


def check_imagenet(root: Path, findings: Findings, decode: bool) -> None:
    """Check both splits, then whether their classes agree."""
    found: dict[Split, ImageSet] = {}
    for split in _CLASS_SIZES:
        images = scan_imagenet(root, split, findings)
        if images is None:
            continue
        found[split] = images
        findings.counts |= {
            f"{split} classes": len(images.classes),
            f"{split} images": len(images),
        }
        names = ((f"{split}/{name}", "", None) for name in images.files)
        check_files(root, names, findings, decode=decode)
    if len(found) == len(_CLASS_SIZES):
        train, val = {*found["train"].classes}, {*found["val"].classes}
        for name in sorted(train - val):
            findings.fault(f"val/{name}", "is missing: training has this class", name)
        for name in sorted(val - train):
            findings.fault(f"train/{name}", "is missing: validation has this class", name)
    findings.compare(PUBLISHED, "ImageNet-1k")
    for split, images in found.items():
        _note_class_sizes(split, images, findings)


def _note_class_sizes(split: Split, images: ImageSet, findings: Findings) -> None:
    """Where all classes are there, note those that are smaller or larger than published."""
    if len(images.classes) != PUBLISHED["train classes"]:
        return
    least, most = _CLASS_SIZES[split]
    sizes = Counter(images.labels.tolist())
    odd = [
        f"{name} ({sizes[label]})"
        for label, name in enumerate(images.classes)
        if not least <= sizes[label] <= most
    ]
    if odd:
        shown = ", ".join(odd[:10]) + (", ..." if len(odd) > 10 else "")
        findings.notes.append(
            f"{split}: {len(odd)} classes lack the published {least} to {most} images: {shown}"
        )
