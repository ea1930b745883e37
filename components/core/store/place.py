"""A folder or a file in a bucket, by its URL."""

from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UsageError
from components.core.store import Store, bucket_and_key, open_store


@dataclass(frozen=True)
class Place:
    """Where in a bucket an artifact or a single file is, or will be."""

    url: str
    store: Store
    """The whole bucket."""
    key: str

    def fetch(self, folder: Path) -> Path:
        """Fetch what is here into a folder, under its own name.

        Returns:
            The file or the folder that was fetched.

        Raises:
            KeyNotFound: when there is nothing.
        """
        target = folder / self.key.rpartition("/")[2]
        if [entry.key for entry in self.store.list(self.key)] == [self.key]:
            self.store.get(self.key, target)
        else:
            self.store.get_folder(self.key, target)
        return target


class Places:
    """Finds places, and opens each bucket once, so that connections are kept."""

    def __init__(self) -> None:
        self._buckets: dict[str, Store] = {}

    def find(self, url: str) -> Place:
        """Return the place that a bucket's URL names, without touching the network.

        Raises:
            UsageError: when it names the bucket only.
        """
        root, key = bucket_and_key(url)
        if not key:
            raise UsageError(f"{url}: name a file or a folder in the bucket, {url.rstrip('/')}/KEY")
        if root not in self._buckets:
            self._buckets[root] = open_store(root)
        return Place(f"{root}/{key}", self._buckets[root], key)
