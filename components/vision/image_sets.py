"""Readers of image folders and lists: ImageNet, iNaturalist 2018, and images without classes.

A `scan` reports faults and returns what can be used; a `read` refuses what has any.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.vision.datasets.coco_records import file_name, labelled_record, named_record
from components.vision.datasets.findings import Findings, strictly
from components.vision.datasets.records import read_lists, usable_records
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
        DataError: if it has a fault; `moco data check` lists all faults.
    """
    return strictly(lambda findings: scan_image_set(kind, path, split, findings), path, kind)


def scan_image_set(
    kind: ImageKind, path: Path, split: Split, findings: Findings
) -> ImageSet | None:
    """Scan one split of a data set; `images` have no splits."""
    return _SCANS[kind](path, split, findings)


def scan_imagenet(root: Path, split: Split, findings: Findings) -> ImageSet | None:
    """Scan ROOT/SPLIT/CLASS/*.JPEG; classes are sorted by name, files within a class too.

    Hidden folders and those that systems add (`@eaDir`, `__MACOSX`) are no classes, and hidden
    files no images.
    """
    folder = root / split
    entries = _scan(folder, split, findings)
    if entries is None:
        return None
    loose = [one.name for one in entries if is_image(one.name) and not one.is_dir()]
    if loose:
        findings.fault(
            split,
            f"{len(loose):,} images lie outside of class folders, such as {loose[0]}: "
            "sort them into one folder for each class",
        )
    classes = [one.name for one in entries if one.is_dir() and _is_class(one.name)]
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


def scan_inaturalist(root: Path, split: Split, findings: Findings) -> ImageSet | None:
    """Scan ROOT/SPLIT2018.json; classes are sorted by category id."""
    file = f"{split}2018.json"
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
    categories.sort(key=lambda one: int(one["id"]))
    if not images:
        findings.fault(file, "has no images: an empty split trains and measures nothing")
    for name, count in Counter(one["file_name"] for one in images).items():
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
        files=Names(one["file_name"] for one in images),
        labels=np.array(labels, np.int32),
        classes=tuple(one["name"] for one in categories),
        ids=np.array([one["id"] for one in images], np.int64),  # type: ignore[arg-type]
    )


def read_images(path: Path) -> ImageSet:
    """Read any images for pre-training: a folder tree, or a text file with one path a line.

    Raises:
        DataError: if there are none, or a list names one twice or outside of its folder.
    """
    return read_image_set("images", path, "train")


def scan_images(path: Path, split: Split, findings: Findings) -> ImageSet | None:
    """Scan a folder tree, or a text file with one path a line.

    Listed paths are relative to the list's folder, or absolute and in it. The order is that of the
    list, or sorted by path.
    """
    if path.is_file():
        root, files = path.parent, list(_listed_images(path, findings))
    elif path.is_dir():
        root, files = path, sorted(_walk_images(path, findings))
    else:
        findings.fault(str(path), "is neither a folder nor a list of images")
        return None
    if not files:
        findings.fault(str(path), f"has no images ({', '.join(EXTENSIONS)})")
        return None
    return ImageSet(root, Names(files), np.full(len(files), -1, np.int32))


def _is_class(name: str) -> bool:
    return not name.startswith((".", "@", "__"))


def _class_images(folder: Path, shown: str, findings: Findings) -> list[str]:
    """Return the images of a class, and note what else is in its folder."""
    images = []
    for entry in _scan(folder, shown, findings) or ():
        if entry.is_dir():
            if _is_class(entry.name):
                message = "a folder inside of a class is never read"
                findings.fault(f"{shown}/{entry.name}", message)
        elif is_image(entry.name):
            images.append(entry.name)
        elif not entry.name.startswith("."):
            findings.notes.append(f"{shown}/{entry.name}: is no image by its name, and not read")
    return images


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
    label_of = {one["id"]: label for label, one in enumerate(categories)}
    known = {one["id"] for one in images}
    found: dict[int, list[int]] = {}
    for one in annotations:
        if one["image_id"] not in known and not refused & {one["image_id"], None}:
            message = f"annotates image {one['image_id']}, which does not exist"
            findings.fault(file, message, one["id"])
        if one["category_id"] not in label_of:
            message = f"names category {one['category_id']}, which does not exist"
            findings.fault(file, message, one["id"])
        found.setdefault(one["image_id"], []).append(label_of.get(one["category_id"], -1))
    labels = []
    for one in images:
        own = found.get(one["id"], [])
        if len(own) != 1:
            message = f"the image has {len(own)} annotations instead of one"
            findings.fault(file, message, one["id"])
        labels.append(own[0] if own else -1)
    return labels


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
        for entry in _scan(root / folder, folder, findings) or ():
            name = f"{folder}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if _is_class(entry.name):
                    folders.append(f"{name}/")
            elif is_image(entry.name):
                yield name


def _scan(folder: Path, shown: str, findings: Findings) -> list[os.DirEntry[str]] | None:
    """Return what is in a folder, sorted by name; None if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        findings.fault(shown, f"the folder is missing: the layout is ROOT/{shown}/WNID/*.JPEG")
    except OSError as error:
        findings.fault(shown, f"the folder cannot be read: {error.strerror}")
    return None


_SCANS: dict[ImageKind, Callable[[Path, Split, Findings], ImageSet | None]] = {
    "imagenet": scan_imagenet,
    "inaturalist": scan_inaturalist,
    "images": scan_images,
}
