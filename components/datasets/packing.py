"""Packs images into shards: in an order drawn by a seed, many at a time, whole or not at all."""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError, UsageError
from components.core.store import Store
from components.core.store.place import Place
from components.core.store.shards import INDEX, NAMES, PLACES
from components.datasets.findings import Findings
from components.datasets.loading import image_reader
from components.datasets.shards import (
    Images,
    find_images,
    is_sharded,
    read_list,
    write_index,
)
from components.vision.decoding import CorruptImageError, read_bytes
from components.vision.image_sets import ImageSet

Tell = Callable[[str, int, int], object]
"""Is told a split, and how many of its shards are done."""


_BEGUN = ".packing.json"  # in a folder that is not packed to the end: what goes there


@dataclass(frozen=True)
class _Bucket:
    """A split's place in a bucket; what is packed passes through a folder, shard by shard."""

    store: Store
    key: str

    @cached_property
    def there(self) -> set[str]:
        """Names of the files that an earlier attempt left."""
        return {entry.key.removeprefix(f"{self.key}/") for entry in self.store.list(self.key)}

    def fetch(self, path: Path) -> None:
        """Fetch a file if it is there."""
        if path.name in self.there:
            self.store.get(f"{self.key}/{path.name}", path)

    def put(self, path: Path) -> None:
        self.store.put(path, f"{self.key}/{path.name}")

    def delete(self, name: str) -> None:
        self.store.delete(f"{self.key}/{name}")


@dataclass(frozen=True)
class _Packing:
    """How a split is packed.

    Attributes:
        images: What is packed.
        folder: Where to.
        order: Which image comes when, (N,).
        shard: Images of a shard.
        split: Names the shards.
        bucket: Where they go on to, if they do.
    """

    images: ImageSet
    folder: Path
    order: npt.NDArray[np.int64]
    shard: int
    split: str
    bucket: _Bucket | None

    @property
    def count(self) -> int:
        return -(-len(self.order) // self.shard)

    def pack(self, number: int) -> Images:
        """Make a shard, unless it is there, and read it back."""
        path = self.folder / f"{self.split}-{number:06d}.tar"
        if self.bucket is None:
            return self._pack(path, number)
        try:
            self.bucket.fetch(path)
            images = self._pack(path, number)
            if path.name not in self.bucket.there:
                self.bucket.put(path)
        finally:
            path.unlink(missing_ok=True)
        return images

    def _pack(self, path: Path, number: int) -> Images:
        chosen = self.order[number * self.shard : (number + 1) * self.shard]
        if path.exists():
            return self._read_back(path, chosen)
        unfinished = path.with_name(f".{path.name}.part")
        with tarfile.open(unfinished, "w:", format=tarfile.USTAR_FORMAT) as archive:
            for place, index in enumerate(chosen.tolist()):
                self._add(archive, f"{number * self.shard + place:09d}", index)
        images = self._read_back(unfinished, chosen)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
        return images._replace(shard=images.shard.model_copy(update={"name": path.name}))

    def _read_back(self, path: Path, chosen: npt.NDArray[np.int64]) -> Images:
        images = find_images(path, [self.images.image_id(index) for index in chosen.tolist()])
        if not np.array_equal(images.places["label"], self.images.labels[chosen]):
            raise DataError(f"{path} does not hold the labels that belong there: remove it")
        return images

    def _add(self, archive: tarfile.TarFile, key: str, index: int) -> None:
        path = self.images.path(index)
        extension = self.images.files[index].rpartition(".")[2].lower()
        try:
            content = read_bytes(path)
        except CorruptImageError as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        parts = [(extension if extension.isalnum() else "jpg", content)]
        if self.images.classes:
            parts.append(("cls", str(self.images.label(index)).encode()))
        for name, content in parts:
            member = tarfile.TarInfo(f"{key}.{name}")  # of nobody and no time: equal bytes again
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def pack(
    layout: str,
    source: Path,
    destination: Path | Place,
    *,
    shard: int,
    seed: int = 0,
    jobs: int | None = None,
    tell: Tell = lambda *_: None,
) -> dict[str, int]:
    """Pack every split of images; what an interrupted attempt has finished is kept.

    Args:
        layout: The source's, of images with classes or without.
        source: Its folder.
        destination: The folder, or the place in a bucket, that the shards go to; it is read as the
            same layout then.
        shard: Images of a shard.
        seed: Of the order.
        jobs: Shards at a time.
        tell: Is told how far it is.

    Returns:
        Images by split.

    Raises:
        DataError: if the source has a fault.
        UsageError: if other images, or another order, are packed there already.
        StoreError: if the bucket cannot be read or written.
    """
    reader = image_reader(layout)
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        place = None
        if isinstance(destination, Place):
            place = destination
            destination = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moco-")))
        for split in dict.fromkeys((reader.training, reader.validation)):
            if is_sharded(source, split):
                raise UsageError(f"{source / split} is in shards already")
            images = reader.read(source, split)
            order = np.random.default_rng(seed).permutation(len(images))
            bucket = _Bucket(place.store, f"{place.key}/{split}") if place else None
            packing = _Packing(images, destination / split, order, shard, split, bucket)
            said = {
                "layout": layout,
                "images": len(images),
                "source": _digest(images),
                "shard": shard,
                "seed": seed,
            }
            _pack_split(packing, said, jobs or os.cpu_count(), tell)
            counts[split] = len(images)
    return counts


def _pack_split(packing: _Packing, said: dict[str, object], jobs: int | None, tell: Tell) -> None:
    folder, bucket = packing.folder, packing.bucket
    _begin(folder, said, bucket)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            made = _told(pool.map(packing.pack, range(packing.count)), tell, packing)
            write_index(folder, made, packing.images.classes, said)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if bucket:
        for name in (NAMES, PLACES, INDEX):  # what lists the others comes last
            bucket.put(folder / name)
        bucket.delete(_BEGUN)
    (folder / _BEGUN).unlink()


def _begin(folder: Path, said: dict[str, object], bucket: _Bucket | None) -> None:
    """Write down what is packed into a folder; refuse one that holds shards of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / _BEGUN
    there = bucket.there if bucket else folder.iterdir()
    if bucket:
        for name in (INDEX, _BEGUN):
            bucket.fetch(folder / name)
    before: dict[str, object] | None = None
    if is_sharded(folder.parent, folder.name):
        listed = read_list(folder, str(folder), Findings())
        before = dict(listed.packed) if listed else {}
    elif begun.exists():
        before = json.loads(begun.read_bytes())
    elif any(PurePath(name).suffix == ".tar" for name in there):
        before = {}
    if before not in (None, said):
        where = f"{bucket.store.url}/{bucket.key}" if bucket else folder
        raise UsageError(
            f"{where} holds other shards ({before or 'nobody knows of what'}); name another "
            "folder, or remove them"
        )
    begun.write_text(json.dumps(said), "utf-8")
    if bucket:
        bucket.put(begun)


def _digest(images: ImageSet) -> str:
    """Return a digest of what images are called, and of their classes."""
    digest = hashlib.sha256("\n".join(images.classes).encode())
    for index in range(len(images)):
        digest.update(f"\n{images.label(index)} ".encode() + os.fsencode(images.image_id(index)))
    return digest.hexdigest()


def _told(made: Iterator[Images], tell: Tell, packing: _Packing) -> Iterator[Images]:
    for done, images in enumerate(made, 1):
        tell(packing.split, done, packing.count)
        yield images
