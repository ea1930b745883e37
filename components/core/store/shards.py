"""Data sets in shards that stay in a bucket: the index is fetched, of a shard what is asked for."""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from components.core.store import HashMismatch, KeyNotFound, Store, open_store

INDEX, PLACES, NAMES = "index.json", "places.bin", "names.txt"
"""Beside a split's shards: which there are, where images are in them, what these are called."""
SPLITS = ("train", "val")
_STORED = ".stored.json"  # in place of the shards


class StoredShards:
    """The shards of a split, in a bucket."""

    def __init__(self, url: str, shards: Mapping[str, tuple[int, str]]) -> None:
        """Ask nothing of the store yet.

        Args:
            url: Where they are.
            shards: Size and ETag of each when the index was fetched, by name.
        """
        self.url = url
        self._store = open_store(url)
        self._shards = shards

    def size(self, path: Path) -> int | None:
        """Return the size of a shard, in bytes; None if there was none."""
        return self._shards.get(path.name, (None, ""))[0]

    def etag(self, name: str) -> str:
        """Return what the store called the content of a shard."""
        return self._shards[name][1]

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read a part of a shard.

        Raises:
            HashMismatch: if it is not the shard any more whose index was fetched.
            KeyNotFound: if it is gone.
            StoreError: if the store cannot be reached for as long as is waited for it.
        """
        return self._store.read_part(name, offset, size, self.etag(name))


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
    sharded = False
    for split in SPLITS:
        try:
            listed = store.read(f"{key}/{split}/{INDEX}")
        except KeyNotFound:
            continue
        sharded = True
        target = folder / split
        target.mkdir(parents=True, exist_ok=True)
        start = len(f"{key}/{split}/")
        entries = {entry.key[start:]: entry for entry in store.list(f"{key}/{split}")}
        if PLACES in entries:
            digest = store.get(f"{key}/{split}/{PLACES}", target / PLACES)
            if digest != json.loads(listed).get("places"):
                raise HashMismatch(
                    f"{store.url}/{key}/{split}: {PLACES} is not of this {INDEX}; copy both anew"
                )
        if NAMES in entries and split != SPLITS[0]:  # nobody asks what a billion are called
            store.get(f"{key}/{split}/{NAMES}", target / NAMES)
        shards = {name: (entry.size, entry.etag) for name, entry in entries.items()}
        stored = {"url": f"{store.url}/{key}/{split}", "shards": shards}
        (target / _STORED).write_text(json.dumps(stored), "utf-8")
        (target / INDEX).write_bytes(listed)
    return sharded


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
    return StoredShards(stored["url"], stored["shards"])
