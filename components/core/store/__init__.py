"""One interface over a folder and an S3 bucket: where artifacts and checkpoints are kept."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from components.core.errors import UsageError
from components.core.store.base import Entry, HashMismatch, KeyNotFound, NotAllowed, Store
from components.core.store.folder import FolderStore
from components.core.store.keys import UnsafeKey

IN_CODE_DIGEST = False  # stores carry bytes, which are verified by their hashes

__all__ = [
    "BUCKET_SCHEMES",
    "Entry",
    "FolderStore",
    "HashMismatch",
    "KeyNotFound",
    "NotAllowed",
    "Store",
    "UnsafeKey",
    "bucket_and_key",
    "is_remote",
    "local_path",
    "open_store",
]

BUCKET_SCHEMES = ("s3", "minio")
"""Of the URLs of buckets: any S3 store's, and those of a server that an endpoint names."""
_URL = re.compile(
    rf"({'|'.join(BUCKET_SCHEMES)}|file|https?|[a-z][a-z0-9+.-]*(?=:/)):(.*)", re.I | re.S
)


def is_remote(url: str | os.PathLike[str]) -> bool:
    """Tell a bucket's URL from a file or folder of this machine.

    Raises:
        UsageError: for a URL of neither, `https://` or `s3:/bucket`: no path begins so by accident.
    """
    return _split(url)[0] in BUCKET_SCHEMES


def bucket_and_key(url: str) -> tuple[str, str]:
    """Split a bucket's URL into that of the whole bucket and the key in it, which may be empty."""
    scheme, _, place = url.partition("://")
    bucket, _, key = place.rstrip("/").partition("/")
    return f"{scheme}://{bucket}", key


def local_path(url: str | os.PathLike[str]) -> Path:
    """Return the path that a path or a `file://` URL names.

    Raises:
        UsageError: for any other URL.
    """
    scheme, path = _split(url)
    if scheme in BUCKET_SCHEMES:
        raise UsageError(f"{url} is in a bucket; a path of this machine is needed here")
    return Path(unquote(path) if scheme else path)


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
    if not is_remote(url):
        return FolderStore(local_path(url))
    # The minio client takes half a second to import: folders do without.
    from components.core.store.s3 import S3Store
    from components.core.store.settings import S3Settings

    scheme, rest = _split(url)
    bucket, _, prefix = rest.partition("/")
    settings = S3Settings.from_environment(environment)
    credentials = settings.credentials(environment)
    return S3Store(bucket, prefix.strip("/"), settings, credentials, scheme)


def _split(url: str | os.PathLike[str]) -> tuple[str, str]:
    """Split a URL into its scheme and what is behind the slashes; a path has no scheme."""
    text = os.fspath(url)
    match = _URL.fullmatch(text.strip())
    if match is None:
        return "", text
    scheme, rest = match[1].lower(), match[2]
    if text != text.strip():
        raise UsageError(f"{text!r}: remove the blank or line break around it")
    if scheme in BUCKET_SCHEMES:
        if rest.startswith("//"):
            return scheme, rest[2:]
        raise UsageError(f"{text!r}: a bucket's URL has two slashes, {scheme}://{rest.lstrip('/')}")
    if scheme == "file":
        path = re.sub("^//(localhost)?(?=/)", "", rest)
        if path.startswith("/") and not path.startswith("//"):
            return scheme, path
    if scheme in ("http", "https"):
        raise UsageError(f"{text!r}: nothing is fetched from the web; fetch it, and give its path")
    raise UsageError(
        f"{text!r} names no store: write a folder, file:///folder, s3://bucket/prefix "
        f"or minio://bucket/prefix; a folder of that name is ./{text}"
    )
