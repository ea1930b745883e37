"""Checks ImageNet's layout: ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG."""

import os
from pathlib import Path

from components.vision.check.files import Boundary, check_files
from components.vision.check.findings import Findings
from components.vision.formats import is_image

PUBLISHED = {"train classes": 1000, "train images": 1_281_167, "val images": 50_000}
_CLASS_SIZES = {"train": (732, 1300), "val": (50, 50)}


def check_imagenet(root: Path, findings: Findings, decode: bool) -> None:
    """Check both splits, then whether their classes agree."""
    classes = {split: _check_split(root, split, findings, decode) for split in ("train", "val")}
    train, val = classes["train"], classes["val"]
    if train and val:
        for name in sorted(train.keys() - val.keys()):
            findings.fault(f"val/{name}", "is missing: training has this class", name)
        for name in sorted(val.keys() - train.keys()):
            findings.fault(f"train/{name}", "is missing: validation has this class", name)
    findings.compare(PUBLISHED, "ImageNet-1k")
    for split, sizes in classes.items():
        _note_class_sizes(split, sizes, findings)


def _check_split(root: Path, split: str, findings: Findings, decode: bool) -> dict[str, int]:
    """Check one split; return its classes with their numbers of images."""
    folder = root / split
    if not folder.is_dir():
        findings.fault(split, "the folder is missing: the layout is ROOT/train/WNID/*.JPEG")
        return {}
    boundary = Boundary(root)
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    loose = [entry.name for entry in entries if not entry.is_dir()]
    flat = [name for name in loose if is_image(name)]
    if flat:
        findings.fault(
            split,
            f"{len(flat):,} images lie outside of class folders, such as {flat[0]}: "
            "sort them into one folder for each class",
        )
    images: list[str] = []
    sizes: dict[str, int] = {}
    for entry in entries:
        if not entry.is_dir():
            continue
        if boundary.excludes(entry.path):
            findings.fault(
                f"{split}/{entry.name}", "leads out of the data set's folder", entry.name
            )
            continue
        found = _class_images(f"{split}/{entry.name}", entry.path, findings)
        if not found:
            findings.fault(f"{split}/{entry.name}", "the class has no images", entry.name)
        sizes[entry.name] = len(found)
        images += found
    if not sizes and not flat:
        findings.fault(split, "has no class folders: the layout is ROOT/train/WNID/*.JPEG")
    findings.counts |= {f"{split} classes": len(sizes), f"{split} images": len(images)}
    check_files(root, ((name, "", None) for name in images), findings, decode=decode)
    return sizes


def _class_images(name: str, path: str, findings: Findings) -> list[str]:
    """List the images of a class, and complain of everything else in its folder."""
    images = []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if is_image(entry.name):
            images.append(f"{name}/{entry.name}")
        elif entry.is_dir():
            findings.fault(f"{name}/{entry.name}", "a folder inside of a class is never read")
        elif not entry.name.startswith("."):
            findings.fault(f"{name}/{entry.name}", "is not an image by its name and is never read")
    return images


def _note_class_sizes(split: str, sizes: dict[str, int], findings: Findings) -> None:
    """Where all classes are there, note those that are smaller or larger than published."""
    if len(sizes) != PUBLISHED["train classes"]:
        return
    least, most = _CLASS_SIZES[split]
    odd = [f"{name} ({count})" for name, count in sizes.items() if not least <= count <= most]
    if odd:
        shown = ", ".join(odd[:10]) + (", ..." if len(odd) > 10 else "")
        findings.notes.append(
            f"{split}: {len(odd)} classes lack the published {least} to {most} images: {shown}"
        )
