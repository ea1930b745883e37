"""Parts of shards that were read once, on a local disk, up to a limit."""

import hashlib
import os
import tempfile
from pathlib import Path

from components.core.log import get_logger
from components.core.store.shards import StoredShards

log = get_logger(__name__)

_BLOCK = 128 << 10  # bytes that are kept or not
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class KeptShards:
    """Reads shards in a bucket, and keeps what it read; several processes share what is kept.

    A shard has a sparse file as large as it, with a byte for each of its blocks behind that, which
    says that the block is there. What is full stays as it is: all is read once an epoch, so that
    nothing would be asked for sooner than what had to go for it.
    """

    def __init__(self, shards: StoredShards, limit: int, folder: Path | None = None) -> None:
        """Keep nothing yet.

        Args:
            shards: What is read.
            limit: Bytes that this process adds, at most.
            folder: Where they go; by default one of TMPDIR that is the shards' own, until the
                machine starts anew: what a disk had not written then is lost.
        """
        self._shards = shards
        self._left = limit
        self._folder = folder or _folder_of(shards.url)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read a part of a shard, as `StoredShards.read`."""
        first, end = offset // _BLOCK, -(-(offset + size) // _BLOCK)
        data = self._kept(name, first, end)
        if data is None:
            start = first * _BLOCK
            data = self._shards.read(name, start, min(end * _BLOCK, self._size(name)) - start)
            self._keep(name, first, end, data)
        skipped = offset - first * _BLOCK
        return data[skipped : skipped + size]

    def _kept(self, name: str, first: int, end: int) -> bytes | None:
        start, size = first * _BLOCK, self._size(name)
        try:
            with self._file(name).open("rb") as file:
                marks = os.pread(file.fileno(), end - first, size + first)
                if marks == b"\1" * (end - first):
                    return os.pread(file.fileno(), min(end * _BLOCK, size) - start, start)
        except OSError:
            pass
        return None

    def _keep(self, name: str, first: int, end: int, data: bytes) -> None:
        if len(data) > self._left:
            return
        self._left -= len(data)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._file(name), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                _write(file, first * _BLOCK, data)
                _write(file, self._size(name) + first, b"\1" * (end - first))  # not before the data
            finally:
                os.close(file)
        except OSError as error:
            self._left = 0
            log.warning("no more is kept on disk", folder=str(self._folder), why=error.strerror)

    def _size(self, name: str) -> int:
        return self._shards.size(name) or 0

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.replace('/', '_')}.{self._shards.etag(name)}"


def _write(file: int, offset: int, data: bytes) -> None:
    while data:  # a signal may cut a write short
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _folder_of(url: str) -> Path:
    boot = _BOOT.read_text("ascii") if _BOOT.exists() else ""
    digest = hashlib.sha256(f"{url}\n{boot}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"moco-shards-{os.getuid()}" / digest
