"""Keys that name a file inside the store and can never name one outside it."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from components.core.errors import StoreError

PART_SUFFIX = ".moco-part"  # a file that is still being written; never listed
DIGEST_SUFFIX = ".moco-sha256"  # a file's hash, beside it; never listed

_LONGEST_KEY = 1024  # bytes, S3's limit
_LONGEST_NAME = 255  # bytes, the limit of file systems and of MinIO


class UnsafeKey(StoreError):  # noqa: N818 - named like KeyNotFound
    """A key or a link would leave the store's folder."""


def checked_key(key: str) -> str:
    """Return the key if it is a plain relative path with `/` between its names.

    Raises:
        UnsafeKey: for an absolute path, `.`, `..`, an empty name, a backslash, a control
            character, or a name that no file system takes.
    """
    fault = _fault(key)
    if fault:
        raise UnsafeKey(
            f"key {key!r} is refused: {fault}; a key is a path such as 'run/step/file.json'"
        )
    return key


def path_within(folder: Path, key: str) -> Path:
    """Return the path of a key below a folder, following no link on the way.

    Raises:
        UnsafeKey: when the key is unsafe, or a part of the path is a link.
    """
    path = folder
    for name in PurePosixPath(checked_key(key)).parts:
        path /= name
        if path.is_symlink():
            raise UnsafeKey(f"{path} is a link: a store holds plain files only, remove the link")
    return path


def files_below(folder: Path) -> dict[str, Path]:
    """Find all finished files below a folder, by key, sorted.

    Raises:
        UnsafeKey: for a link, or for what is neither a file nor a folder.
    """
    files = {
        checked_key(os.path.relpath(path, folder)): Path(path) for path in _walk(os.fspath(folder))
    }
    return dict(sorted(files.items()))


def _walk(folder: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return  # deleted meanwhile
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        elif not entry.is_file(follow_symlinks=False):
            raise UnsafeKey(
                f"{entry.path} is a link or a device: a store holds plain files only, remove it "
                "or replace it by the file itself"
            )
        elif not entry.name.endswith((PART_SUFFIX, DIGEST_SUFFIX)):
            yield entry.path


def _fault(key: str) -> str | None:
    names = key.split("/")
    faults = {
        "it is empty": not key,
        "it is an absolute path": key.startswith("/"),
        "it holds '.' or '..', which would lead elsewhere": not {".", ".."}.isdisjoint(names),
        "it holds an empty name": "" in names,
        "it holds a backslash": "\\" in key,
        "it holds a control character": any(ord(c) < 32 or ord(c) == 127 for c in key),
        "it is not valid text": any(0xD800 <= ord(c) <= 0xDFFF for c in key),
        f"it is longer than {_LONGEST_KEY} bytes": _bytes(key) > _LONGEST_KEY,
        f"a name in it is longer than {_LONGEST_NAME} bytes": max(map(_bytes, names))
        > _LONGEST_NAME,
        f"{PART_SUFFIX} is for unfinished files": names[-1].endswith(PART_SUFFIX),
        f"{DIGEST_SUFFIX} is for hashes": names[-1].endswith(DIGEST_SUFFIX),
    }
    return next((fault for fault, applies in faults.items() if applies), None)


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
