"""ImageNet's layout: ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from components.datasets.findings import Findings
from components.datasets.folders import is_class, list_folder
from components.datasets.interface import ImageReader
from components.vision.formats import is_image
from components.vision.image_sets import ImageSet, Names

_CLASS_SIZES: Mapping[str, tuple[int, int]] = {"train": (732, 1300), "val": (50, 50)}


class Imagenet(ImageReader):
    """Folders of classes; classes are sorted by name, files within a class too."""

    title: ClassVar = "ImageNet-1k"
    published: ClassVar = {"train classes": 1000, "train images": 1_281_167, "val images": 50_000}

    def scan(self, root: Path, split: str, findings: Findings) -> ImageSet | None:
        """Report what is wrong with ROOT/SPLIT, and return what can be used.

        Hidden folders and those that systems add (`@eaDir`, `__MACOSX`) are no classes, and hidden
        files no images.
        """
        folder = root / split
        entries = list_folder(folder, split, findings)
        if entries is None:
            return None
        loose = [entry.name for entry in entries if is_image(entry.name) and not entry.is_dir()]
        if loose:
            findings.fault(
                split,
                f"{len(loose):,} images lie outside of class folders, such as {loose[0]}: "
                "sort them into one folder for each class",
            )
        classes = [entry.name for entry in entries if entry.is_dir() and is_class(entry.name)]
        if not classes and not loose:
            findings.fault(
                split, f"has no images in class folders: the layout is ROOT/{split}/WNID/*.JPEG"
            )
        names: list[str] = []
        labels: list[npt.NDArray[np.int32]] = []
        for label, name in enumerate(classes):
            files = _class_images(folder / name, f"{split}/{name}", findings)
            if not files:
                findings.fault(f"{split}/{name}", "the class has no images", name)
            names += [f"{name}/{file}" for file in files]
            labels.append(np.full(len(files), label, np.int32))
        if not names:
            return None
        return ImageSet(folder, Names(names), np.concatenate(labels), tuple(classes))

    def undivided(self, root: Path) -> str | None:
        """Name the folder of the classes where there is only one: ROOT/train, or ROOT itself."""
        if any((root / split).is_dir() for split in (self.validation, self.training)):
            return None if (root / self.validation).is_dir() else self.training
        return "."

    def note(self, split: str, images: ImageSet, findings: Findings) -> None:
        """Where all classes are there, note those that are smaller or larger than published."""
        if len(images.classes) != self.published["train classes"]:
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


def _class_images(folder: Path, shown: str, findings: Findings) -> list[str]:
    """Return the images of a class, and note what else is in its folder."""
    images = []
    for entry in list_folder(folder, shown, findings) or ():
        if entry.is_dir():
            if is_class(entry.name):
                message = "a folder inside of a class is never read"
                findings.fault(f"{shown}/{entry.name}", message)
        elif is_image(entry.name):
            images.append(entry.name)
        elif not entry.name.startswith("."):
            findings.notes.append(f"{shown}/{entry.name}: is no image by its name, and not read")
    return images
