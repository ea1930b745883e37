"""Readers of image folders and lists: ImageNet, iNaturalist 2018, and images without classes."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.vision.formats import EXTENSIONS, ImageKind, Split, is_image


class Names(Sequence[str]):
    """Millions of texts in one block of bytes.

    A list of Python strings would take four times the memory, and again in every
    loading process, because counting references touches the pages.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])])


@dataclass(frozen=True)
class ImageSet:
    """Images with their classes; nothing is opened until it is needed.

    Attributes:
        root: The folder that file names are relative to.
        files: File names.
        labels: Class indices, (N,), int32; -1 without classes.
        classes: Class names; empty without classes.
        ids: Identifiers that a data set gives its images; empty where the file name is one.
    """

    root: Path
    files: Sequence[str]
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...] = ()
    ids: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return f"{self.root}/{self.files[index]}"

    def label(self, index: int) -> int:
        """Return the class index of an image, -1 without classes."""
        return int(self.labels[index])

    def image_id(self, index: int) -> str:
        """Return what the data set calls an image."""
        return str(self.ids[index]) if len(self.ids) else self.files[index]


def read_image_set(kind: ImageKind, path: Path, split: Split) -> ImageSet:
    """Read one split of a data set; `images` have no splits, all of them are returned.

    Raises:
        DataError: if the layout is not that of the kind; `moco data check` lists all faults.
    """
    return _READERS[kind](path, split)


def read_imagenet(root: Path, split: Split) -> ImageSet:
    """Read ROOT/SPLIT/CLASS/*.JPEG; classes are sorted by name, files within a class too."""
    folder = root / split
    classes = sorted(entry.name for entry in _scan(folder) if entry.is_dir())
    names: list[str] = []
    labels: list[npt.NDArray[np.int32]] = []
    for label, name in enumerate(classes):
        files = sorted(entry.name for entry in _scan(folder / name) if is_image(entry.name))
        names += [f"{name}/{file}" for file in files]
        labels.append(np.full(len(files), label, np.int32))
    if not names:
        raise DataError(
            f"{folder} has no images in class folders: ImageNet's layout is {split}/WNID/*.JPEG"
        )
    return ImageSet(folder, Names(names), np.concatenate(labels), tuple(classes))


def read_inaturalist(root: Path, split: Split) -> ImageSet:
    """Read ROOT/SPLIT2018.json and the images that it names; classes are sorted by category id."""
    file = root / f"{split}2018.json"
    try:
        document = json.loads(file.read_bytes())
        categories = sorted(document["categories"], key=lambda category: category["id"])
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        category_of = {one["image_id"]: one["category_id"] for one in document["annotations"]}
        images = document["images"]
        return ImageSet(
            root=root,
            files=Names(image["file_name"] for image in images),
            labels=np.array([label_of[category_of[image["id"]]] for image in images], np.int32),
            classes=tuple(str(category["name"]) for category in categories),
            ids=np.array([image["id"] for image in images], np.int64),  # type: ignore[arg-type]
        )
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file} is not an iNaturalist 2018 annotation file: {type(error).__name__} {error}; "
            f"`moco data check inaturalist {root}` lists every fault"
        ) from None


def read_images(path: Path, split: Split = "train") -> ImageSet:
    """Read any images for pre-training: a folder tree, or a text file with one path a line.

    Listed paths are relative to the list's folder. The order is that of the list, or
    sorted by path.
    """
    if path.is_file():
        lines = path.read_text("utf-8", errors="surrogateescape").splitlines()
        root, files = path.parent, [line.strip() for line in lines if line.strip()]
    else:
        root, files = path, sorted(walk_images(path))
    if not files:
        raise DataError(f"{path} has no images ({', '.join(EXTENSIONS)})")
    return ImageSet(root, Names(files), np.full(len(files), -1, np.int32))


def walk_images(root: Path) -> Iterator[str]:
    """Find all image files below a folder, as names relative to it."""
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in _scan(root / folder):
            name = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
            elif is_image(name):
                yield name


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None


_READERS: dict[ImageKind, Callable[[Path, Split], ImageSet]] = {
    "imagenet": read_imagenet,
    "inaturalist": read_inaturalist,
    "images": read_images,
}
