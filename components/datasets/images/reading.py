"""Images for pre-training: a folder tree, or a text file with one path a line."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from components.datasets.findings import Findings
from components.datasets.folders import is_class, list_folder
from components.datasets.interface import ImageReader
from components.vision.formats import EXTENSIONS, is_image
from components.vision.image_sets import ImageSet, Names


class Images(ImageReader):
    """A folder tree or a list, all of it for training.

    Listed paths are relative to the list's folder, or absolute and in it. The order is that of the
    list, or sorted by path.
    """

    validation: ClassVar = "train"  # nothing is measured on them

    def scan(self, root: Path, split: str, findings: Findings) -> ImageSet | None:
        """Report what is wrong with a folder or a list, and return what can be used."""
        if root.is_file():
            folder, files = root.parent, list(_listed_images(root, findings))
        elif root.is_dir():
            folder, files = root, sorted(_walk_images(root, findings))
        else:
            findings.fault(str(root), "is neither a folder nor a list of images")
            return None
        if not files:
            findings.fault(str(root), f"has no images ({', '.join(EXTENSIONS)})")
            return None
        return ImageSet(folder, Names(files), np.full(len(files), -1, np.int32))

    def count(self, split: str, images: ImageSet, findings: Findings) -> None:
        """Say how many there are."""
        findings.counts["images"] = len(images)


def _listed_images(path: Path, findings: Findings) -> Iterator[str]:
    """Return the images that a list names, as names relative to its folder."""
    lines = path.read_text("utf-8", errors="surrogateescape").splitlines()
    named = [line.strip() for line in lines if line.strip()]
    folder = f"{path.parent.absolute()}/"
    for name, count in Counter(named).items():
        if count > 1:
            findings.fault(path.name, f"is listed {count} times", name)
    for name in named:
        own = name.removeprefix(folder)
        if own.startswith("/") or ".." in own.split("/") or "\0" in own:
            message = f"leads out of the list's folder {folder}; paths are relative to it"
            findings.fault(path.name, message, name)
        else:
            yield own


def _walk_images(root: Path, findings: Findings) -> Iterator[str]:
    """Find all image files below a folder, as names relative to it."""
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in list_folder(root / folder, folder, findings) or ():
            name = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if is_class(entry.name):
                    folders.append(f"{name}/")
            elif is_image(entry.name):
                yield name
