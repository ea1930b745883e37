"""Packs images into shards: in an order drawn by a seed, many at a time, whole or not at all."""

import io
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError, UsageError
from components.datasets.findings import Findings
from components.datasets.loading import image_reader
from components.datasets.shards import (
    Places,
    Shard,
    ShardList,
    describe_shard,
    find_places,
    is_sharded,
    load_places,
    read_list,
    write_list,
)
from components.vision.decoding import CorruptImageError, read_bytes
from components.vision.image_sets import ImageSet

Tell = Callable[[str, int, int], object]
"""Is told a split, and how many of its shards are done."""


@dataclass(frozen=True)
class _Packing:
    """How a split is packed.

    Attributes:
        images: What is packed.
        folder: Where to.
        order: Which image comes when, (N,).
        shard: Images of a shard.
        split: Names the shards.
    """

    images: ImageSet
    folder: Path
    order: npt.NDArray[np.int64]
    shard: int
    split: str

    @property
    def count(self) -> int:
        return -(-len(self.order) // self.shard)

    def pack(self, number: int) -> Shard:
        """Make a shard, unless it is there, and read it back."""
        path = self.folder / f"{self.split}-{number:06d}.tar"
        chosen = self.order[number * self.shard : (number + 1) * self.shard]
        names = np.array([self.images.image_id(index).encode() for index in chosen.tolist()])
        if (known := self._known(path, names)) is not None:
            return known
        unfinished = path.with_name(f".{path.name}.part")
        with tarfile.open(unfinished, "w:", format=tarfile.USTAR_FORMAT) as archive:
            for place, index in enumerate(chosen.tolist()):
                self._add(archive, f"{number * self.shard + place:09d}", index)
        packed = find_places(unfinished)
        labels = self.images.labels[chosen].astype(np.int32)
        if not np.array_equal(packed.labels, labels):
            raise DataError(f"{path}: what was written has other labels when it is read back")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
        Places(packed.offsets, packed.sizes, labels, names).save(path.with_suffix(".npz"))
        return describe_shard(path, len(names))

    def _known(self, path: Path, names: npt.NDArray[np.bytes_]) -> Shard | None:
        """Return a shard that an earlier attempt finished: its index is written last."""
        if not (path.is_file() and path.with_suffix(".npz").is_file()):
            return None
        try:
            places = load_places(path.with_suffix(".npz"))
        except DataError:
            return None
        whole = int((places.offsets + places.sizes).max()) <= path.stat().st_size
        same = np.array_equal(places.names, names)
        return describe_shard(path, len(names)) if whole and same else None

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
    destination: Path,
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
        destination: Where the shards go; it is read as the same layout then.
        shard: Images of a shard.
        seed: Of the order.
        jobs: Shards at a time.
        tell: Is told how far it is.

    Returns:
        Images by split.

    Raises:
        DataError: if the source has a fault.
        UsageError: if other images, or another order, are packed there already.
    """
    reader = image_reader(layout)
    counts: dict[str, int] = {}
    for split in dict.fromkeys((reader.training, reader.validation)):
        if is_sharded(source, split):
            raise UsageError(f"{source / split} is in shards already")
        images = reader.read(source, split)
        order = np.random.default_rng(seed).permutation(len(images))
        packing = _Packing(images, destination / split, order, shard, split)
        said = {"layout": layout, "images": len(images), "shard": shard, "seed": seed}
        _check_free(packing.folder, said)
        packing.folder.mkdir(parents=True, exist_ok=True)
        shards = []
        with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
            try:
                for done, made in enumerate(pool.map(packing.pack, range(packing.count)), 1):
                    shards.append(made)
                    tell(split, done, packing.count)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        write_list(
            packing.folder,
            ShardList(classes=images.classes, shards=tuple(shards), packed=said),
        )
        counts[split] = len(images)
    return counts


def _check_free(folder: Path, said: dict[str, object]) -> None:
    """Refuse a folder that holds shards of something else."""
    if is_sharded(folder.parent, folder.name):
        listed = read_list(folder, str(folder), Findings())
        if listed is None or dict(listed.packed) != said:
            raise UsageError(
                f"{folder} holds other shards ({dict(listed.packed) if listed else 'unreadable'}); "
                "name another folder, or remove them"
            )
