"""Data sets in shards that stay in a bucket: the index is fetched, of a shard what is asked for."""

import json
import os
import posixpath
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from components.core.store import HashMismatch, KeyNotFound, Store, open_store

INDEX, PLACES, NAMES = "index.json", "places.bin", "names.txt"
"""Beside a split's shards: which there are, where images are in them, what these are called."""
SPLITS = ("train", "val")
_STORED = ".stored.json"  # in place of the shards


class StoredShards:
    """The shards of a split, in a bucket; their names are as seen from the split's folder."""

    def __init__(self, url: str, split: str, objects: Mapping[str, tuple[int, str]]) -> None:
        """Ask nothing of the store yet.

        Args:
            url: Where the data set is.
            split: Its folder there.
            objects: Size and ETag of what was there when the index was fetched, by key.
        """
        self.url = url
        self._store = open_store(url)
        self._split = split
        self._objects = objects

    def size(self, name: str) -> int | None:
        """Return the size of a shard, in bytes; None if there was none."""
        return self._objects.get(self._key(name), (None, ""))[0]

    def etag(self, name: str) -> str:
        """Return what the store called the content of a shard."""
        return self._objects.get(self._key(name), (0, ""))[1]

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read a part of a shard.

        Raises:
            HashMismatch: if it is not the shard any more whose index was fetched.
            KeyNotFound: if it is gone.
            StoreError: if the store cannot be reached for as long as is waited for it.
        """
        return self._store.read_part(self._key(name), offset, size, self.etag(name))

    def _key(self, name: str) -> str:
        return posixpath.normpath(f"{self._split}/{name}")


def fetch_index(store: Store, key: str, folder: Path) -> bool:
    """Fetch the index of a data set in shards; False, and nothing, if it is in none.

    What stands in the folder then is read as the whole data set is.

    Args:
        store: Where the data set is.
        key: Its key.
        folder: Where the index goes.

    Raises:
        HashMismatch: if the index does not fit together.
    """
    indices: dict[str, bytes] = {}
    for split in SPLITS:
        with suppress(KeyNotFound):
            indices[split] = store.read(f"{key}/{split}/{INDEX}")
    if not indices:
        return False
    entries = {entry.key.removeprefix(f"{key}/"): entry for entry in store.list(key)}
    objects = {name: (entry.size, entry.etag) for name, entry in entries.items()}
    for split, listed in indices.items():
        target = folder / split
        target.mkdir(parents=True, exist_ok=True)
        if f"{split}/{PLACES}" in entries:
            digest = store.get(f"{key}/{split}/{PLACES}", target / PLACES)
            if digest not in listed.decode(errors="replace"):
                raise HashMismatch(
                    f"{store.url}/{key}/{split}: {PLACES} is not of this {INDEX}; copy both anew"
                )
        # Nobody asks what a billion images are called that are trained on.
        if f"{split}/{NAMES}" in entries and split != SPLITS[0]:
            store.get(f"{key}/{split}/{NAMES}", target / NAMES)
        stored = {"url": f"{store.url}/{key}", "split": split, "objects": objects}
        (target / _STORED).write_text(json.dumps(stored), "utf-8")
        (target / INDEX).write_bytes(listed)
    return True


def stored_shards(folder: Path) -> StoredShards | None:
    """Return where the shards of a split are whose index alone is in a folder; None of others."""
    # A connection is of one process: what a loading process inherited would be shared.
    return _stored_shards(str(folder), os.getpid())


@lru_cache(maxsize=16)
def _stored_shards(folder: str, _process: int) -> StoredShards | None:
    try:
        stored = json.loads((Path(folder) / _STORED).read_bytes())
    except FileNotFoundError:
        return None
    return StoredShards(**stored)
