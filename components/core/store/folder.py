"""A store in a folder: a disk, a PVC, a laptop."""

import contextlib
import hashlib
import io
import os
import shutil
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from components.core.errors import MocoError
from components.core.store.base import (
    Entries,
    Entry,
    HashMismatch,
    KeyNotFound,
    Store,
    deletion_order,
)
from components.core.store.files import copy, creating, reading, replacing
from components.core.store.keys import (
    DIGEST_SUFFIX,
    PART_SUFFIX,
    checked_key,
    files_below,
    path_within,
)

_DIGEST = "user.moco.sha256"  # extended attribute; not every file system keeps it


class FolderStore(Store):
    """Keep files below a folder, each with its SHA-256.

    That is an attribute of the file, or on file systems that take none, as NFS, a file beside it,
    which holds for the file's inode: of what somebody else puts in its place it says nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.url = str(self.folder)

    def __repr__(self) -> str:
        return f"FolderStore({self.url!r})"

    @override
    def check(self) -> None:
        """Fail if the folder cannot be written.

        Raises:
            NotWritableError, DiskFullError, StoreError: naming the folder.
        """
        probe = self.folder / ".moco-check"
        with contextlib.suppress(FileExistsError), creating(probe) as file:
            file.write(b"moco")
        probe.unlink(missing_ok=True)

    @override
    def put(self, source: Path, key: str) -> None:
        path = self._path(key)
        with reading(source) as data, replacing(path, durable=True) as file:
            _remember_digest(file, path, copy(data, file))

    @override
    def get(self, key: str, destination: Path) -> str:
        with self._open(key) as data, replacing(destination, durable=False) as file:
            digest = copy(data, file)
            self._verify(key, data, digest)
            return digest

    @override
    def read(self, key: str) -> bytes:
        with self._open(key) as data, io.BytesIO() as content:
            self._verify(key, data, copy(data, content))
            return content.getvalue()

    @override
    def read_part(self, key: str, offset: int, size: int, etag: str = "") -> bytes:
        with self._open(key) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise HashMismatch(f"{self.folder / key} ends {size - len(data):,} bytes too early")
        return data

    @override
    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        path = self._path(key)
        try:
            with creating(path) if if_absent else replacing(path, durable=True) as file:
                file.write(data)
                _remember_digest(file, path, hashlib.sha256(data).hexdigest())
        except FileExistsError:
            return False
        return True

    @override
    def list(self, prefix: str = "") -> Entries:
        path = self._path(prefix) if prefix else self.folder
        if path.is_file():
            return [Entry(prefix, path.stat().st_size)]
        entries = []
        for name, file in files_below(path).items():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                entries.append(Entry(f"{prefix}/{name}" if prefix else name, file.stat().st_size))
        return entries

    @override
    def holds(self, prefix: str) -> bool:
        return bool(self.list(prefix))

    @override
    def delete(self, prefix: str) -> None:
        path = self._path(prefix)
        for key in deletion_order(entry.key for entry in self.list(prefix)):
            (self.folder / key).unlink(missing_ok=True)
            _beside(self.folder / key).unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed writers left: unfinished files, and folders without any.

        For a store with one writer, before it writes: of several, it would disturb the others.
        """
        for unfinished in self.folder.rglob(f"*{PART_SUFFIX}"):
            unfinished.unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()

    def _path(self, key: str) -> Path:
        return path_within(self.folder, checked_key(key))

    def _open(self, key: str) -> contextlib.AbstractContextManager[BufferedReader]:
        path = self._path(key)
        if not path.is_file():
            raise KeyNotFound(f"{self.url} has no file {key!r}")
        return reading(path)

    def _verify(self, key: str, file: BinaryIO, digest: str) -> None:
        expected = _remembered_digest(file, self.folder / key)
        if expected not in (None, digest):
            raise HashMismatch(
                f"{self.folder / key} is not what was put there: SHA-256 {digest}, "
                f"was {expected}; make it again, or restore the file"
            )


def _remember_digest(file: BinaryIO, path: Path, digest: str) -> None:
    """Note the digest of a file that takes its place at a path next."""
    try:
        os.setxattr(file.fileno(), _DIGEST, digest.encode())
    except (OSError, AttributeError):
        inode = os.fstat(file.fileno()).st_ino
        with contextlib.suppress(MocoError), replacing(_beside(path), durable=False) as note:
            note.write(f"{digest} {inode}".encode())


def _remembered_digest(file: BinaryIO, path: Path) -> str | None:
    with contextlib.suppress(OSError, AttributeError):
        return os.getxattr(file.fileno(), _DIGEST).decode()
    with contextlib.suppress(OSError, ValueError):
        digest, inode = _beside(path).read_text("ascii").split()
        if int(inode) == os.fstat(file.fileno()).st_ino:
            return digest
    return None


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}{DIGEST_SUFFIX}")
