"""Images in shards: tar files as WebDataset has them, with an index that says where each one is.

ROOT/SPLIT/NAME.tar has `KEY.jpg` and `KEY.cls` for every image; ROOT/SPLIT/NAME.npz beside it says
where in the file they are, and ROOT/SPLIT/index.json which shards there are. So an image is read by
itself, and the order of a training is as free as among single files, a thousand times as many.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import DataError, UsageError
from components.core.manifest import file_sha256
from components.datasets.findings import Findings
from components.vision.formats import INDEX, is_image
from components.vision.image_sets import ImageSet, Names

_THREADS = 8
_NO_LABEL = -1


class Shard(BaseModel):
    """A tar file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    images: int
    size: int
    """Bytes."""
    sha256: str


class ShardList(BaseModel):
    """The content of index.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    classes: tuple[str, ...]
    """Empty where images have none."""
    shards: tuple[Shard, ...]
    packed: Mapping[str, Any] = {}
    """How they were packed, if it was here."""


class Places(NamedTuple):
    """Where the N images of a shard are.

    Attributes:
        offsets: First bytes, (N,), int64.
        sizes: Bytes, (N,), int64.
        labels: Classes, -1 without, (N,), int32.
        names: What each image is called, (N,), bytes.
    """

    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    names: npt.NDArray[np.bytes_]

    def save(self, path: Path) -> None:
        """Write them, whole or not at all."""
        unfinished = path.with_name(f".{path.name}.part")
        with unfinished.open("wb") as file:
            np.savez(file, **self._asdict())
        unfinished.replace(path)


def is_sharded(root: Path, split: str) -> bool:
    """Say whether a split of a data set is in shards."""
    return (root / split / INDEX).is_file()


def scan_shards(root: Path, split: str, findings: Findings) -> ImageSet | None:
    """Report what is wrong with the shards of a split, and return its images."""
    folder = root / split
    listed = read_list(folder, f"{split}/{INDEX}", findings)
    if listed is None:
        return None
    names: list[str] = []
    kept: list[Places] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = pool.map(lambda shard: _look(folder, shard), listed.shards)
        for shard, (places, message) in zip(listed.shards, looked, strict=True):
            if places is None:
                findings.fault(f"{split}/{shard.name}", message)
                continue
            ends = zip(places.offsets.tolist(), places.sizes.tolist(), strict=True)
            names += [f"{shard.name}@{offset}+{size}" for offset, size in ends]
            kept.append(places)
    if not names:
        findings.fault(f"{split}/{INDEX}", "lists no image that can be read")
        return None
    labels = np.concatenate([places.labels for places in kept])
    if len(wrong := labels[labels >= len(listed.classes)]) or (listed.classes and labels.min() < 0):
        label = wrong[0] if len(wrong) else _NO_LABEL
        findings.fault(f"{split}/{INDEX}", f"an image has label {label} of {len(listed.classes)}")
        return None
    ids = Names(name.decode() for places in kept for name in places.names.tolist())
    return ImageSet(folder, Names(names), labels, listed.classes, ids)


def check_hashes(root: Path, split: str, findings: Findings) -> None:
    """Report shards whose bytes are not those that were packed or indexed."""
    folder = root / split
    listed = read_list(folder, f"{split}/{INDEX}", findings)
    for shard in listed.shards if listed else ():
        path = folder / shard.name
        if path.is_file() and file_sha256(path) != shard.sha256:
            findings.fault(f"{split}/{shard.name}", "its bytes are others than the index says")


def read_list(folder: Path, shown: str, findings: Findings) -> ShardList | None:
    """Read index.json; what is wrong with it is a fault."""
    try:
        listed = ShardList.model_validate_json((folder / INDEX).read_bytes())
    except (OSError, ValidationError) as error:
        findings.fault(shown, f"is no index of shards: {str(error).splitlines()[0]}")
        return None
    return listed


def write_list(folder: Path, listed: ShardList) -> None:
    """Write index.json, whole or not at all; what it lists is there."""
    unfinished = folder / f".{INDEX}.part"
    unfinished.write_text(listed.model_dump_json(indent=1) + "\n", "utf-8")
    unfinished.replace(folder / INDEX)


def load_places(path: Path) -> Places:
    """Read where the images of a shard are.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Places(**{name: stored[name] for name in Places._fields})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path.name} is no index of a shard: {error}") from None


def find_places(path: Path) -> Places:
    """Find the images of a tar file, and their labels, by its headers.

    An image belongs to the files of its key, all up to the first dot of its name: `KEY.cls` has the
    class as a number, `KEY.json` as `label`, `cls` or `class`.

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
    ends = np.array([*images.values()], np.int64)
    if (ends.sum(1) > path.stat().st_size).any():
        raise DataError(f"{path} is no whole tar file: its last image ends after it")
    return Places(
        offsets=ends[:, 0],
        sizes=ends[:, 1],
        labels=np.array([labels.get(key, _NO_LABEL) for key in images], np.int32),
        names=np.array([key.encode() for key in images]),
    )


def describe_shard(path: Path, images: int) -> Shard:
    """Return the entry of a shard, its hash taken from the disk."""
    return Shard(name=path.name, images=images, size=path.stat().st_size, sha256=file_sha256(path))


def index_shards(root: Path, splits: Sequence[str], classes: Sequence[str] = ()) -> dict[str, int]:
    """Make the indices of shards that somebody else packed.

    Args:
        root: The data set's folder.
        splits: Folders in it.
        classes: Names of the classes, in the order of their numbers; by default the numbers.

    Returns:
        Images by split.

    Raises:
        DataError: naming what cannot be read.
        UsageError: if they are shards of ours, whose index has more than the files.
    """
    found: dict[str, list[tuple[Shard, Places]]] = {}
    for split in splits:
        if is_sharded(root, split):
            listed = read_list(root / split, split, Findings())
            if listed is not None and listed.packed:
                raise UsageError(f"{root / split} was packed here, and has an index with names")
        shards = sorted((root / split).glob("[!.]*.tar"))
        if not shards:
            raise DataError(f"{root / split} has no shards, NAME.tar")
        with ThreadPoolExecutor(_THREADS) as pool:
            found[split] = list(pool.map(_indexed, shards))
    most = max(int(places.labels.max()) for pairs in found.values() for _, places in pairs)
    if classes and most >= len(classes):
        raise DataError(f"{root}: a label is {most}, and {len(classes)} classes are named")
    names = tuple(classes or map(str, range(most + 1)))
    for split, pairs in found.items():
        for shard, places in pairs:
            places.save((root / split / shard.name).with_suffix(".npz"))
        write_list(root / split, ShardList(classes=names, shards=tuple(s for s, _ in pairs)))
    return {split: sum(shard.images for shard, _ in pairs) for split, pairs in found.items()}


def _indexed(path: Path) -> tuple[Shard, Places]:
    places = find_places(path)
    return describe_shard(path, len(places.labels)), places


def _look(folder: Path, shard: Shard) -> tuple[Places | None, str]:
    """Return where a shard's images are, or what is wrong with it."""
    path = folder / shard.name
    try:
        size = path.stat().st_size
        places = load_places(path.with_suffix(".npz"))
    except FileNotFoundError:
        return None, "is missing"
    except (OSError, DataError) as error:
        return None, str(error)
    if size != shard.size:
        return None, f"has {size:,} bytes, the index says {shard.size:,}"
    if len(places.labels) != shard.images:
        return None, f"has {len(places.labels)} images, the index says {shard.images}"
    return places, ""


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
