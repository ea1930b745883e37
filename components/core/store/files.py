"""Files that appear whole or not at all, with the digest of what was written."""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from components.core.errors import DiskFullError, NotWritableError, StoreError
from components.core.store.keys import PART_SUFFIX

_CHUNK = 1 << 20  # bytes
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def replacing(destination: Path, *, durable: bool) -> Iterator[BinaryIO]:
    """Give a file to fill that takes its place at `destination` when the block ends well.

    Until then it has a temporary name beside it; when the block fails nothing remains.
    `durable` waits until the disk has the content and the name: for what must survive a power
    cut, not for what can be fetched again.

    Raises:
        DiskFullError, NotWritableError, StoreError: naming the folder.
    """
    with _unfinished(destination) as (file, temporary):
        yield file
        file.flush()
        if durable:
            os.fsync(file.fileno())
        temporary.replace(destination)
        if durable:
            _sync_folder(destination.parent)


@contextlib.contextmanager
def creating(destination: Path) -> Iterator[BinaryIO]:
    """Give a file to fill that appears at `destination` unless something is there already.

    Of several writers, in whatever processes, one wins. The result is durable.

    Raises:
        FileExistsError: for the others.
        DiskFullError, NotWritableError, StoreError: naming the folder.
    """
    with _unfinished(destination) as (file, temporary):
        yield file
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(temporary, destination)
        except FileExistsError:
            raise
        except OSError:
            # Some mounts have no hard links: claim the name, then fill it in one step.
            os.close(os.open(destination, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            temporary.replace(destination)
        _sync_folder(destination.parent)


@contextlib.contextmanager
def reading(source: Path) -> Iterator[BufferedReader]:
    """Open a plain file for reading.

    Raises:
        StoreError: when there is none, or it is a link, a folder or a device.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise StoreError(f"cannot read {source}: {_reason(error)}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"cannot read {source}: it is not a plain file")
        yield file


def copy(source: BinaryIO, destination: BinaryIO) -> str:
    """Copy the rest of one file into another, and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        destination.write(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _unfinished(destination: Path) -> Iterator[tuple[BinaryIO, Path]]:
    temporary = destination.with_name(f".{secrets.token_hex(8)}{PART_SUFFIX}")
    with _disk_errors(destination):
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        try:
            with temporary.open("xb") as file:
                yield file, temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk_errors(destination: Path) -> Iterator[None]:
    """Turn what the disk says into an error that names the folder and the way out."""
    folder = destination.parent
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFullError(
                f"no space left in {folder} for {destination.name}: free some, or choose another "
                "folder, and repeat the command; nothing half-written was left there"
            ) from None
        if error.errno in _NO_PERMISSION:
            raise NotWritableError(
                f"{destination} cannot be written ({_reason(error)}): "
                f"give this user the right to write in {folder}, or choose another folder"
            ) from None
        raise StoreError(f"{destination} cannot be written: {_reason(error)}") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
