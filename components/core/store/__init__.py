"""One interface over a folder and an S3 bucket: where artifacts and checkpoints are kept."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.core.errors import UsageError
from components.core.store.base import Entry, HashMismatch, KeyNotFound, NotAllowed, Store
from components.core.store.folder import FolderStore
from components.core.store.keys import UnsafeKey

IN_CODE_DIGEST = False  # stores carry bytes, which are verified by their hashes

__all__ = [
    "Entry",
    "FolderStore",
    "HashMismatch",
    "KeyNotFound",
    "NotAllowed",
    "Store",
    "UnsafeKey",
    "is_remote",
    "open_store",
]

_BUCKET_SCHEMES = ("s3", "minio")


def is_remote(url: str | os.PathLike[str]) -> bool:
    """Tell a bucket's URL from a folder."""
    return urlsplit(os.fspath(url)).scheme in _BUCKET_SCHEMES


def open_store(url: str | os.PathLike[str], environment: Mapping[str, str] = os.environ) -> Store:
    """Open the store that a URL names, without touching the network; `check()` does that.

    A folder path, `file:///folder`, `s3://bucket/prefix` or `minio://bucket/prefix`. What else a
    bucket needs comes from the environment: see `S3Settings`.

    Args:
        url: The store, or a folder in it.
        environment: In place of this process's variables.

    Raises:
        UsageError: when the URL names no store.
        StoreError: when a setting is wrong or there are no credentials.
    """
    url = os.fspath(url)
    parts = urlsplit(url)
    if "://" not in url:
        return FolderStore(Path(url))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme in _BUCKET_SCHEMES:
        # The minio client takes half a second to import: folders do without.
        from components.core.store.s3 import S3Store
        from components.core.store.settings import S3Settings

        bucket, _, prefix = url.partition("://")[2].partition("/")
        settings = S3Settings.from_environment(environment)
        return S3Store(
            bucket,
            prefix.strip("/"),
            settings,
            settings.credentials(environment),
            parts.scheme,
        )
    raise UsageError(
        f"{url!r} names no store: write a folder, file:///folder, s3://bucket/prefix "
        "or minio://bucket/prefix"
    )
