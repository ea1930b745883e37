"""Images in shards: tar files as WebDataset has them, with an index that says where each one is.

ROOT/SPLIT/NAME.tar has `KEY.jpg` and `KEY.cls` for every image. In the same folder, index.json says
which shards there are, places.bin where in them the images are, and names.txt what these are
called. So an image is read by itself, and a training may begin anywhere in its order.
"""

import hashlib
import json
import os
import posixpath
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DataError, UsageError
from components.core.manifest import file_sha256
from components.core.store import Store
from components.core.store.shards import INDEX, NAMES, PLACES, SPLITS, stored_shards
from components.datasets.findings import Findings
from components.vision.formats import is_image
from components.vision.image_sets import ImageSet, NamesInFile, ShardFiles

_THREADS = 8
_PART = 16 << 20  # bytes of a shard that are read at once
_NO_LABEL = -1
PATTERNS: Mapping[str, str] = {split: f"{split}/*.tar" for split in SPLITS}
"""Which files are a split's shards, if nothing else is said."""
PLACE = np.dtype([("offset", "<i8"), ("size", "<i4"), ("label", "<i4")])
"""Of places.bin: an image's first byte in its shard, its bytes, and its class, -1 without."""


class Shard(BaseModel):
    """A tar file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As seen from the split's folder."""
    images: int
    size: int
    """Bytes."""
    sha256: str


class ShardList(BaseModel):
    """The content of index.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 2
    classes: tuple[str, ...]
    """Empty where images have none."""
    shards: tuple[Shard, ...]
    places: str
    """SHA-256 of places.bin."""
    packed: Mapping[str, Any] = {}
    """How they were packed, if it was here."""

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(shard.images for shard in self.shards)


class Images(NamedTuple):
    """What a shard holds.

    Attributes:
        shard: Its entry in the list.
        places: Where its N images are, (N,), `PLACE`.
        names: What they are called.
    """

    shard: Shard
    places: npt.NDArray[np.void]
    names: Sequence[str]


def is_sharded(root: Path, split: str) -> bool:
    """Say whether a split of a data set is in shards."""
    return (root / split / INDEX).is_file()


def scan_shards(root: Path, split: str, findings: Findings) -> ImageSet | None:
    """Report what is wrong with the shards of a split, and return its images.

    The index is not read into memory: of a billion images it has 16 GB.
    """
    folder = root / split
    listed = read_list(folder, f"{split}/{INDEX}", findings)
    if listed is None:
        return None
    faults = list(_faults(folder, listed))
    for name, message in faults:
        findings.fault(f"{split}/{name}", message)
    if faults:
        return None
    places = np.memmap(folder / PLACES, PLACE, "r")
    labels: npt.NDArray[Any] = places["label"]
    if listed.classes:
        if labels.min() < 0 or labels.max() >= len(listed.classes):
            label = _NO_LABEL if labels.min() < 0 else labels.max()
            message = f"an image has label {label} of {len(listed.classes)}"
            findings.fault(f"{split}/{INDEX}", message)
            return None
        labels = np.ascontiguousarray(labels)
    files = ShardFiles(
        [shard.name for shard in listed.shards],
        np.cumsum([shard.images for shard in listed.shards]),
        places,
    )
    names = NamesInFile(folder / NAMES, len(files)) if (folder / NAMES).exists() else ()
    bytes_each = sum(shard.size for shard in listed.shards) // len(files)
    return ImageSet(folder, files, labels, listed.classes, names, shard_bytes=bytes_each)


def check_hashes(root: Path, split: str, findings: Findings) -> None:
    """Report shards whose bytes are not those that were packed or indexed."""
    folder = root / split
    listed = read_list(folder, f"{split}/{INDEX}", findings)
    if listed and file_sha256(folder / PLACES) != listed.places:
        findings.fault(f"{split}/{PLACES}", "its bytes are others than the index says")
    for shard in listed.shards if listed else ():
        digest = _sha256(folder, shard)
        if digest not in (None, shard.sha256):
            findings.fault(f"{split}/{shard.name}", "its bytes are others than the index says")


def read_list(folder: Path, shown: str, findings: Findings) -> ShardList | None:
    """Read index.json; what is wrong with it is a fault."""
    try:
        listed = ShardList.model_validate_json((folder / INDEX).read_bytes())
    except (OSError, ValidationError) as error:
        findings.fault(shown, f"is no index of shards: {str(error).splitlines()[0]}")
        return None
    return listed


def write_index(
    folder: Path,
    shards: Iterable[Images],
    classes: Sequence[str] | None = None,
    packed: Mapping[str, Any] | None = None,
) -> ShardList:
    """Write the index of shards that are there, whole or not at all; return what it lists.

    Args:
        folder: Where they are.
        shards: What each holds, in their order; they are taken one by one.
        classes: Names of the classes; by default the numbers.
        packed: How they were packed, if it was here.

    Raises:
        DataError: if a name has a line break, or there is a label of no class.
    """
    digest, listed, most = hashlib.sha256(), [], _NO_LABEL
    unfinished = {name: folder / f".{name}.part" for name in (PLACES, NAMES)}
    with unfinished[PLACES].open("wb") as places, unfinished[NAMES].open("wb") as names:
        for shard in shards:
            listed.append(shard.shard)
            content = shard.places.tobytes()
            digest.update(content)
            places.write(content)
            most = max(most, int(shard.places["label"].max()))
            if broken := next((name for name in shard.names if "\n" in name), None):
                raise DataError(f"{broken!r} has a line break in its name: rename it")
            names.writelines(os.fsencode(name) + b"\n" for name in shard.names)
    if classes and most >= len(classes):
        raise DataError(f"{folder}: a label is {most}, and {len(classes)} classes are named")
    named = map(str, range(most + 1)) if classes is None else classes
    index = ShardList(
        classes=tuple(named),
        shards=tuple(listed),
        places=digest.hexdigest(),
        packed=packed or {},
    )
    (folder / INDEX).unlink(missing_ok=True)
    for name, path in unfinished.items():
        path.replace(folder / name)
    save_list(folder, index)
    return index


def save_list(folder: Path, index: ShardList) -> None:
    """Write index.json, whole or not at all."""
    unfinished = folder / f".{INDEX}.part"
    unfinished.write_text(index.model_dump_json(indent=1) + "\n", "utf-8")
    unfinished.replace(folder / INDEX)


def find_images(path: Path, names: Sequence[str] | None = None) -> Images:
    """Find the images of a tar file, and their labels, by its headers.

    An image belongs to the files of its key, all up to the first dot of its name: `KEY.cls` has the
    class as a number, `KEY.json` as `label`, `cls` or `class`.

    Args:
        path: The file.
        names: What the images are called; by default by their keys.

    Raises:
        DataError: if it is no whole tar file, has no image, or a label is no number.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                key, _, extension = _parted(member.name)
                if is_image(f"x.{extension}"):
                    if key in images:
                        raise DataError(f"{path}: {key} has two images")
                    images[key] = (member.offset_data, member.size)
                elif extension in ("cls", "json"):
                    file = archive.extractfile(member)
                    label = _label_in(file.read() if file else b"", extension, f"{path}: {key}")
                    if label is not None:
                        labels[key] = label
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path} is no whole tar file: {error}") from None
    if not images:
        raise DataError(f"{path} has no images")
    if labels and len(missing := images.keys() - labels.keys()):
        raise DataError(f"{path}: {min(missing)} and {len(missing) - 1} more have no label")
    places = np.empty(len(images), PLACE)
    ends = np.array([*images.values()], np.int64)
    places["offset"], places["size"] = ends.T
    places["label"] = [labels.get(key, _NO_LABEL) for key in images]
    size = path.stat().st_size
    if (ends.sum(1) > size).any():
        raise DataError(f"{path} is no whole tar file: its last image ends after it")
    shard = Shard(name=path.name, images=len(places), size=size, sha256=file_sha256(path))
    return Images(shard, places, names or [*images])


def index_shards(
    root: Path, patterns: Mapping[str, str] = PATTERNS, classes: Sequence[str] = ()
) -> dict[str, int]:
    """Make the indices of shards that somebody else packed.

    Args:
        root: The data set's folder.
        patterns: Which files of it are a split's shards, by split.
        classes: Names of the classes, in the order of their numbers; by default the numbers.

    Returns:
        Images by split.

    Raises:
        DataError: naming what cannot be read.
        UsageError: if they are shards of ours, whose index has more than the files.
    """
    names = {
        split: [path.relative_to(root).as_posix() for path in root.glob(pattern)]
        for split, pattern in patterns.items()
    }
    shards = _chosen(names, patterns, str(root))
    for split in shards:
        if is_sharded(root, split):
            _refuse_packed(read_list(root / split, split, Findings()), f"{root / split}")
    return _write_indices(root, shards, classes, lambda name: find_images(root / name))


def index_stored_shards(
    store: Store, key: str, patterns: Mapping[str, str] = PATTERNS, classes: Sequence[str] = ()
) -> dict[str, int]:
    """Make the indices of shards in a bucket that somebody else packed; each is fetched once.

    Args:
        store: The bucket.
        key: The data set's.
        patterns: As of `index_shards`.
        classes: Likewise.

    Returns:
        Images by split.

    Raises:
        DataError: naming what cannot be read.
        UsageError: as `index_shards`.
        StoreError: if the bucket cannot be read or written.
    """
    stored = [entry.key.removeprefix(f"{key}/") for entry in store.list(key)]
    names = {
        split: [name for name in stored if PurePosixPath(f"/{name}").match(f"/{pattern}")]
        for split, pattern in patterns.items()
    }
    shards = _chosen(names, patterns, f"{store.url}/{key}")
    with tempfile.TemporaryDirectory(prefix="moco-") as folder:
        root = Path(folder)

        def find(name: str) -> Images:
            path = root / name
            path.parent.mkdir(exist_ok=True)
            store.get(f"{key}/{name}", path)
            try:
                return find_images(path)
            finally:
                path.unlink()

        for split in shards:
            if f"{split}/{INDEX}" in stored:
                store.get(f"{key}/{split}/{INDEX}", root / split / INDEX)
                listed = read_list(root / split, split, Findings())
                _refuse_packed(listed, f"{store.url}/{key}/{split}")
        counts = _write_indices(root, shards, classes, find)
        for split in shards:
            for file in (NAMES, PLACES, INDEX):  # what lists the others comes last
                store.put(root / split / file, f"{key}/{split}/{file}")
    return counts


def _chosen(
    names: Mapping[str, Sequence[str]], patterns: Mapping[str, str], where: str
) -> dict[str, list[str]]:
    """Return the shards of each split that has some, sorted."""
    shards = {
        split: sorted(name for name in found if PurePosixPath(name).name[0] != ".")
        for split, found in names.items()
    }
    lacking = {split for split, found in shards.items() if not found}
    if lacking and (lacking == shards.keys() or patterns is not PATTERNS):
        told = " and no ".join(patterns[split] for split in patterns if split in lacking)
        raise DataError(f"{where} has no {told}: name its shards with --train and --val")
    return {split: found for split, found in shards.items() if found}


def _refuse_packed(listed: ShardList | None, where: str) -> None:
    if listed is not None and listed.packed:
        raise UsageError(f"{where} was packed here, and has an index with names")


def _write_indices(
    root: Path,
    shards: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    find: Callable[[str], Images],
) -> dict[str, int]:
    """Write the index of each split, all with the same classes; return how many images each has."""

    def find_named(split: str, name: str) -> Images:
        images = find(name)
        called = {"name": posixpath.relpath(name, split)}
        return images._replace(shard=images.shard.model_copy(update=called))

    indices: dict[str, ShardList] = {}
    for split, names in shards.items():
        (root / split).mkdir(exist_ok=True)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(partial(find_named, split), names)
            indices[split] = write_index(root / split, found, classes or None)
    # A split may lack the last classes.
    most = max((index.classes for index in indices.values()), key=len)
    for split, index in indices.items():
        if len(index.classes) < len(most):
            save_list(root / split, index.model_copy(update={"classes": most}))
    return {split: index.images for split, index in indices.items()}


def _faults(folder: Path, listed: ShardList) -> Iterator[tuple[str, str]]:
    """Say what is wrong with the files of an index, by their names."""
    stored = stored_shards(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        names = [shard.name for shard in listed.shards]
        paths = (folder / name for name in names)
        sizes = pool.map(_size, paths) if stored is None else map(stored.size, names)
        for shard, size in zip(listed.shards, sizes, strict=True):
            if size is None:
                yield shard.name, "is missing"
            elif size != shard.size:
                yield shard.name, f"has {size:,} bytes, the index says {shard.size:,}"
    if not listed.shards:
        yield INDEX, "lists no shards"
    size, wanted = _size(folder / PLACES), listed.images * PLACE.itemsize
    if size != wanted:
        message = "is missing" if size is None else f"has {size:,} bytes, not {wanted:,}"
        yield PLACES, f"{message}: it is made by `moco data pack`, or by `moco data index`"


def _sha256(folder: Path, shard: Shard) -> str | None:
    """Return the hash of a shard wherever it is; None if it is nowhere."""
    stored = stored_shards(folder)
    if stored is None:
        return file_sha256(folder / shard.name) if (folder / shard.name).is_file() else None
    if stored.size(shard.name) != shard.size:
        return None
    digest = hashlib.sha256()
    for offset in range(0, shard.size, _PART):
        digest.update(stored.read(shard.name, offset, min(_PART, shard.size - offset)))
    return digest.hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _parted(name: str) -> tuple[str, str, str]:
    """Part a name in a tar file at the first dot of its last part, as WebDataset does."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return f"{folder}{slash}{stem}", dot, extension.lower()


def _label_in(content: bytes, extension: str, where: str) -> int | None:
    try:
        if extension == "cls":
            return int(content)
        values = json.loads(content)
        named: Iterator[Any] = (
            values[name] for name in ("label", "cls", "class") if name in values
        )
        label = next(named, None)
        return None if label is None else int(label)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}.{extension} has no number of a class: {error}") from None
