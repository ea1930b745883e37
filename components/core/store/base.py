"""What every store can do, and how folders move through it."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.core.errors import ExitCode, StoreError
from components.core.store.keys import checked_key, files_below, path_within

LAST = "manifest.json"  # a folder without it is no artifact, so it moves after all the rest
TRANSFERS = 16  # files at a time


class KeyNotFound(StoreError):  # noqa: N818 - the name of the fact
    """The store has nothing under that key."""


class HashMismatch(StoreError):  # noqa: N818 - the name of the fact
    """What the store holds is not what was put there."""


class NotAllowed(StoreError):  # noqa: N818 - the name of the fact
    """The store knows who asks, and does not let them do that."""

    exit_code = ExitCode.NO_PERMISSION


@dataclass(frozen=True, order=True)
class Entry:
    """One file in a store."""

    key: str
    size: int
    """Bytes."""
    etag: str = ""
    """What a bucket calls this content."""


Entries = list[Entry]  # `list` is also a method here


class Store(Protocol):
    """Files by key, in a folder or in a bucket under a prefix.

    A key is a relative path with `/`; a prefix is a key that names a folder, or `""` for all.
    Every write is atomic, every read is checked against the SHA-256 taken at the write. Methods
    may be called from several threads.

    Raises:
        UnsafeKey: by every method, for a key that would leave the store.
        StoreError: by every method, when the store cannot be reached or refuses.
    """

    url: str

    def check(self) -> None:
        """Fail now, within 5 s, if the store cannot be used: before hours of work are spent."""

    def put(self, source: Path, key: str) -> None:
        """Store a file, replacing what is there."""

    def get(self, key: str, destination: Path) -> str:
        """Fetch a file; it appears at `destination` whole and verified, or not at all.

        Returns:
            The SHA-256 of the content.

        Raises:
            KeyNotFound, HashMismatch, DiskFullError.
        """
        ...

    def read(self, key: str) -> bytes:
        """Fetch a small file's content.

        Raises:
            KeyNotFound, HashMismatch.
        """
        ...

    def read_part(self, key: str, offset: int, size: int, etag: str = "") -> bytes:
        """Fetch a part of a file, which is not verified: the hash is of the whole.

        Args:
            key: The file's.
            offset: Of the first byte.
            size: How many bytes.
            etag: Of the content that it has to be, if that is known.

        Raises:
            KeyNotFound: when there is no such file.
            HashMismatch: when it is another content, or ends before the part does.
        """
        ...

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Store a small file's content, replacing what is there unless `if_absent`.

        Returns:
            False if `if_absent` and another writer was first; of several at once one gets True.
        """
        ...

    def list(self, prefix: str = "") -> Entries:
        """List the files under a prefix, or the one file whose key it is, sorted by key."""
        ...

    def holds(self, prefix: str) -> bool:
        """Say whether there is anything under a prefix, without listing all of it."""
        ...

    def delete(self, prefix: str) -> None:
        """Delete the files under a prefix, or the one file whose key it is, if there are any."""

    def put_folder(self, folder: Path, prefix: str, *, manifest: bool = True) -> None:
        """Store all files below a folder, many at a time, its manifest after all others.

        Args:
            folder: What to store.
            prefix: Where to.
            manifest: False leaves the manifest to the caller, who has something to do before.

        Raises:
            UnsafeKey: when the folder holds a link.
        """
        files = files_below(folder)
        if not manifest:
            files.pop(LAST, None)
        _transfer(files, lambda name: self.put(files[name], _joined(prefix, name)))

    def get_folder(self, prefix: str, folder: Path) -> None:
        """Fetch all files under a prefix into a folder, many at a time, the manifest last.

        Raises:
            KeyNotFound: when there is nothing under the prefix.
            UnsafeKey: when a listed key would leave the folder; nothing is fetched then.
        """
        start = len(_joined(prefix, ""))
        names = [entry.key[start:] for entry in self.list(prefix) if entry.key != prefix]
        if not names:
            raise KeyNotFound(f"{self.url} has nothing under {prefix!r}")
        destinations = {name: path_within(folder, name) for name in names}
        _transfer(names, lambda name: self.get(_joined(prefix, name), destinations[name]))


def deletion_order(keys: Iterable[str]) -> list[str]:
    """Put manifests first: what is deleted halfway must not look like an artifact."""
    return sorted(keys, key=lambda key: (key.rpartition("/")[2] != LAST, key))


def _joined(prefix: str, name: str) -> str:
    return f"{checked_key(prefix)}/{name}" if prefix else name


def _transfer(names: Iterable[str], move: Callable[[str], object]) -> None:
    """Move files in parallel; after a failure the ones not begun are left."""
    names = set(names)
    with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="store") as pool:
        moves = [pool.submit(move, name) for name in sorted(names - {LAST})]
        try:
            for done in as_completed(moves):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if LAST in names:
        move(LAST)
