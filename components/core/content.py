"""What a mounted data set holds: counts and digests of its pictures and labels, cheap to take."""

import hashlib
import heapq
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import JsonValue

from components.core.manifest import file_sha256

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of files that are images."""

# Annotation files, VOC's lists, and the pictures whose pixels are labels.
_LABELS = re.compile(
    r"\.(jsonl?|xml|csv|tsv|mat|pkl|np[yz])$|(^|/)ImageSets/.*\.txt$"
    r"|(^|/)(SegmentationClass|gtFine|annotations|masks)[^/]*/.*\.png$|(^|/)classes\.txt$",
    re.IGNORECASE,
)
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")  # what archives and network disks leave beside the data
_THREADS = 16  # for disks that answer late
_LISTED = 100  # label files of a folder that are told apart
_FOLDERS = 10_000  # that are told apart
_SAMPLE = 64  # pictures whose bytes are looked at
_DIGITS = 32  # of a digest, hexadecimal: there may be thousands
_UNREADABLE = "unreadable"

Parts = Mapping[str, tuple[int, str]]
"""Number of files and their digest, by folder; by name for label files of which there are few."""


@dataclass(frozen=True)
class Content:
    """What a data set holds, wherever it lies: equal for equal data.

    Pictures count by name and size in bytes, and a sample of them by their bytes; label files by
    their bytes. Hidden files and files of other kinds do not count.
    """

    pictures: Parts
    labels: Parts
    sample: Mapping[str, str] = field(default_factory=dict)
    """Digests of some pictures, by name; which ones depends on the names alone."""

    @property
    def digest(self) -> str:
        """A SHA-256 of all."""
        sample: Parts = {name: (1, digest) for name, digest in self.sample.items()}
        rows = (
            f"{kind}\0{name}\0{count}\0{digest}\n"
            for kind, parts in (
                ("pictures", self.pictures),
                ("labels", self.labels),
                ("sample", sample),
            )
            for name, (count, digest) in sorted(parts.items())
        )
        return _sha256(rows)

    def to_json(self) -> dict[str, JsonValue]:
        """Return JSON values from which `from_json` makes the same again."""
        return {
            "pictures": {name: [*part] for name, part in self.pictures.items()},
            "labels": {name: [*part] for name, part in self.labels.items()},
            "sample": {**self.sample},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, Any]]) -> "Content":
        """Read what `to_json` returned; before there were samples, it had none."""
        pictures, labels = (
            {name: (int(count), str(digest)) for name, (count, digest) in value[kind].items()}
            for kind in ("pictures", "labels")
        )
        return cls(pictures, labels, value.get("sample", {}))

    def changes_since(self, before: "Content", shown: int = 10) -> list[str]:
        """Say in words what has changed, at most `shown` folders and files by name; [] if nothing.

        The first line has the sums where they differ.
        """
        told = [
            *_told(before.pictures, self.pictures, "picture(s)"),
            *_told(before.labels, self.labels, "label file(s)"),
        ]
        told += self._others_in_sample(before)
        if not told:
            return []
        pictures = [
            sum(count for count, _ in content.pictures.values()) for content in (before, self)
        ]
        sums = (f"had {pictures[0]} pictures, has {pictures[1]}",) if len({*pictures}) > 1 else ()
        more = (f"and {len(told) - shown} more",) if len(told) > shown else ()
        return [*sums, *told[:shown], *more]

    def _others_in_sample(self, before: "Content") -> Iterator[str]:
        """Tell of pictures of the sample with other bytes, but for folders that are told of."""
        for name in sorted(self.sample.keys() & before.sample.keys()):
            folders = [*map(str, PurePosixPath(name).parents[:-1]), ""]
            counted = next((folder for folder in folders if folder in self.pictures), "")
            same = self.pictures.get(counted) == before.pictures.get(counted)
            if same and self.sample[name] != before.sample[name]:
                yield f"{name} is not what it was: picture of the same name and size"


def describe(path: Path) -> Content:
    """Say what a data set holds: a folder, or a text file that lists images, one a line.

    Takes a `stat` of every picture, and reads the label files. What cannot be read counts as
    such: only who needs it knows whether that is a fault.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        folders = _listed(path) if path.is_file() else list(_walked(path, pool))
        pictures = {folder.name: folder.pictures for folder in folders if folder.pictures}
        sampled = heapq.nsmallest(_SAMPLE, (drawn for f in folders for drawn in f.sample))
        names = [(f.name, label) for f in folders for label in f.labels]
        root = path.parent if path.is_file() else path
        hashes = pool.map(_hash, (root / folder / name for folder, name in names))
        labels: dict[str, dict[str, str]] = defaultdict(dict)
        for (folder, name), digest in zip(names, hashes, strict=True):
            labels[folder][name] = digest
        shown = [name for _, name in sampled]
        bytes_of = dict(zip(shown, pool.map(_hash, (root / name for name in shown)), strict=True))
    return Content(_folded(pictures), _folded(_grouped(labels)), bytes_of)


@dataclass(frozen=True)
class _Place:
    """A folder to look into; `real` are the folders behind the links that led there."""

    name: str
    real: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Folder:
    name: str
    pictures: tuple[int, str] | None = None
    labels: tuple[str, ...] = ()
    folders: tuple[_Place, ...] = ()
    sample: tuple[tuple[int, str], ...] = ()


def _walked(root: Path, pool: ThreadPoolExecutor) -> Iterator[_Folder]:
    level = [_Place("")]
    while level:
        looked = list(pool.map(partial(_look, root), level))
        yield from looked
        level = [place for folder in looked for place in folder.folders]


def _look(root: Path, place: _Place) -> _Folder:
    pictures: list[tuple[str, int]] = []
    labels: list[str] = []
    folders: list[_Place] = []
    try:
        with os.scandir(root / place.name) as scanned:
            entries = list(scanned)
    except OSError:
        return _Folder(place.name)
    for entry in entries:
        name = f"{place.name}/{entry.name}" if place.name else entry.name
        if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
            continue
        if entry.is_dir():
            folders += _entered(entry, name, place)
        elif _LABELS.search(name):
            labels.append(entry.name)
        elif entry.name.lower().endswith(EXTENSIONS):
            pictures.append((entry.name, _size(entry)))
    # An empty folder counts: it may be a class.
    known = pictures or not (labels or folders)
    return _Folder(
        place.name,
        _part(pictures) if known else None,
        tuple(labels),
        tuple(folders),
        _sampled(place.name, pictures),
    )


def _entered(entry: "os.DirEntry[str]", name: str, place: _Place) -> Iterator[_Place]:
    """Give the place of a folder, but for a link that leads back to where it is."""
    if not entry.is_symlink():
        yield _Place(name, place.real)
        return
    real, here = Path(entry.path).resolve(), Path(entry.path).parent.resolve()
    if real not in place.real and not here.is_relative_to(real):
        yield _Place(name, (*place.real, real))


def _listed(file: Path) -> list[_Folder]:
    """Group the images that a list names, relative to its folder, and the list itself."""
    folders: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for line in file.read_text("utf-8", errors="surrogateescape").splitlines():
        if name := line.strip():
            folder, _, last = name.rpartition("/")
            folders[folder].append((last, _size(file.parent / name)))
    grouped = [
        _Folder(name, _part(files), sample=_sampled(name, files)) for name, files in folders.items()
    ]
    return [*grouped, _Folder("", labels=(file.name,))]


def _grouped(labels: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[int, str]]:
    """Give every label file its digest, but those of a folder with many one together."""
    parts = {}
    for folder, digests in labels.items():
        if len(digests) > _LISTED:
            rows = (f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
            parts[folder] = (len(digests), _sha256(rows))
        else:
            prefix = f"{folder}/" if folder else ""
            parts |= {f"{prefix}{name}": (1, digest) for name, digest in digests.items()}
    return parts


def _folded(parts: Parts) -> Parts:
    """Put folders together, the deepest first, until few enough are left to be told apart."""
    folded, depth = parts, max((name.count("/") + 1 for name in parts), default=0)
    while len(folded) > _FOLDERS and depth:
        depth -= 1
        groups: dict[str, list[str]] = defaultdict(list)
        for name in sorted(parts):
            groups["/".join(name.split("/")[:depth])].append(name)
        folded = {
            group: (
                sum(parts[name][0] for name in names),
                _sha256(f"{name}\0{parts[name][0]}\0{parts[name][1]}\n" for name in names),
            )
            for group, names in groups.items()
        }
    return folded


def _told(before: Parts, now: Parts, what: str) -> Iterator[str]:
    for name in sorted({*before, *now}):
        (old, was), (new, digest) = before.get(name, (0, "")), now.get(name, (0, ""))
        if (old, was) == (new, digest):
            continue
        shown = name or "."
        if name not in before:
            yield f"{shown} is new: {new} {what}"
        elif name not in now:
            yield f"{shown} is gone: it had {old} {what}"
        elif old != new:
            yield f"{shown} had {old} {what}, has {new}"
        elif old == 1:
            yield f"{shown} is not what it was: {what}"
        else:
            yield f"{shown} has {new} {what} as before, but some have another name or content"


def _sampled(folder: str, pictures: list[tuple[str, int]]) -> tuple[tuple[int, str], ...]:
    """Draw pictures of a folder by their names: those with the least checksums."""
    names = (f"{folder}/{name}" if folder else name for name, _ in pictures)
    drawn = ((zlib.crc32(os.fsencode(name)), name) for name in names)
    return tuple(heapq.nsmallest(_SAMPLE, drawn))


def _part(pictures: list[tuple[str, int]]) -> tuple[int, str]:
    return len(pictures), _sha256(f"{name}\0{size}\n" for name, size in sorted(pictures))


def _size(file: "Path | os.DirEntry[str]") -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1  # of a link that leads nowhere


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)[:_DIGITS]
    except OSError:
        return _UNREADABLE


def _sha256(rows: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(os.fsencode(row))
    return digest.hexdigest()[:_DIGITS]
