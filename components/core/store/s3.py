"""A store in a bucket: MinIO, or whatever else speaks S3."""

import contextlib
import hashlib
import io
import math
import os
import secrets
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from minio.credentials.providers import Provider
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from typing_extensions import override
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError, SSLError

from components.core.errors import StoreError, UsageError
from components.core.log import get_logger
from components.core.store.base import (
    Entries,
    Entry,
    HashMismatch,
    KeyNotFound,
    NotAllowed,
    Store,
    deletion_order,
)
from components.core.store.client import PARALLEL_PARTS, Client, attempts, is_transient, tls_way_out
from components.core.store.files import reading, replacing
from components.core.store.keys import UnsafeKey, checked_key
from components.core.store.settings import AWS, S3Settings
from components.core.store_environment import ACCESS_KEY, ENDPOINT, PROFILE, REGION, SECRET_KEY

PART = 16 << 20  # bytes; larger files are uploaded in parts
_MOST_PARTS = 10_000  # S3's limit
_LARGE_UPLOADS = 2  # at a time, each with PARALLEL_PARTS parts in memory
_CHUNK = 1 << 20  # bytes
_CHECK_SECONDS = 4.5
_TIMEOUT = Timeout(connect=5, read=60)  # seconds

_DIGEST = "sha256"  # names of user metadata
_WRITER = "writer"

# Servers whose conditional writes let one writer through. With others the last of several racing
# writes stays, so the winner is known when all of them must have arrived.
_STRICT_SERVERS = ("MinIO", "AmazonS3")
_SETTLING_SECONDS = 0.5

_CREDENTIALS = f"check {ACCESS_KEY} and {SECRET_KEY}, or the profile in {PROFILE}"
_RIGHTS = "give this key the right to do that in the bucket, or use another key or bucket"
_WAYS_OUT = {
    "AccessDenied": f"{_CREDENTIALS}, and the rights they give on the bucket",
    "AuthorizationHeaderMalformed": f"set {REGION[0]} to the region of the bucket",
    "ExpiredToken": f"the credentials have expired: {_CREDENTIALS}",
    "InvalidAccessKeyId": f"the store does not know the access key: {_CREDENTIALS}",
    "InvalidTokenId": f"the session token is not valid: {_CREDENTIALS}",
    "NoSuchBucket": "create the bucket, or correct its name in the URL",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": f"the secret does not fit the access key: {_CREDENTIALS}",
}

Headers = dict[str, str | list[str] | tuple[str]]

log = get_logger(__name__)


class _Download:
    """How far a download came, so that a broken connection does not undo it."""

    def __init__(self) -> None:
        self.offset = 0
        self.digest = hashlib.sha256()
        self.etag = ""
        self.expected: str | None = None

    def begin(self, body: BaseHTTPResponse, sink: BinaryIO) -> None:
        sink.seek(0)
        sink.truncate()
        self.offset = 0
        self.digest = hashlib.sha256()
        self.etag = body.headers.get("ETag", "")
        self.expected = body.headers.get(f"x-amz-meta-{_DIGEST}")


class S3Store(Store):
    """Keep files as objects under a prefix, each with its SHA-256 as user metadata."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        settings: S3Settings,
        credentials: Provider,
        scheme: str = "s3",
    ) -> None:
        try:
            check_bucket_name(bucket, strict=True)
        except ValueError as error:
            raise UsageError(f"{scheme}://{bucket}/{prefix} names no bucket: {error}") from None
        if scheme == "minio" and not settings.endpoint:
            raise StoreError(
                f"{scheme}://{bucket} needs its server: set {ENDPOINT[0]}=http://HOST:PORT"
            )
        self.url = f"{scheme}://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._root = f"{checked_key(prefix)}/" if prefix else ""
        self._settings = settings
        self._credentials = credentials
        try:
            self._client = Client(settings, self._credentials, _TIMEOUT)
        except ValueError as error:
            raise StoreError(
                f"{settings.endpoint or AWS} is no store that can be asked: {error}; set "
                f"{ENDPOINT[0]} to http://HOST:PORT or https://HOST:PORT"
            ) from None
        self._large = threading.BoundedSemaphore(_LARGE_UPLOADS)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r}, endpoint={self._settings.endpoint or AWS!r})"

    @override
    def check(self) -> None:
        failures: list[Exception] = []

        def probe() -> None:
            hurried = self._settings.model_copy(update={"retry_seconds": 0.0})
            try:
                with self._explained("check the store"):
                    client = Client(hurried, self._credentials, Timeout(connect=2, read=3))
                    next(client.list_objects(self._bucket, prefix=self._root), None)
            except Exception as error:
                failures.append(error)

        # A thread, because resolving a name takes no timeout.
        thread = threading.Thread(target=probe, daemon=True)
        thread.start()
        thread.join(_CHECK_SECONDS)
        if thread.is_alive():
            raise self._error("check the store", f"no answer in {_CHECK_SECONDS} s")
        if failures:
            raise failures[0] from None

    @override
    def put(self, source: Path, key: str) -> None:
        name = self._name(key)
        with reading(source) as file, self._explained(f"put {key}"):
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with self._large if size > PART else contextlib.nullcontext():
                self._upload(name, file, size, digest)

    @override
    def get(self, key: str, destination: Path) -> str:
        name = self._name(key)
        with self._explained(f"get {key}"), replacing(destination, durable=False) as file:
            return self._fetch(name, file)

    @override
    def read(self, key: str) -> bytes:
        name = self._name(key)
        with self._explained(f"read {key}"), io.BytesIO() as content:
            self._fetch(name, content)
            return content.getvalue()

    @override
    def read_part(self, key: str, offset: int, size: int, etag: str = "") -> bytes:
        headers: Headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
        if etag:
            headers["If-Match"] = f'"{etag}"'
        with self._explained(f"read {key}"):
            try:
                for attempt in attempts(self._settings.retry_seconds):
                    with attempt:
                        data = self._part(self._name(key), headers)
            except S3Error as error:
                if error.code != "PreconditionFailed":
                    raise
                raise HashMismatch(
                    f"{self.url}/{key} was replaced while it was in use: restore it, or start anew"
                ) from None
        if len(data) != size:
            raise HashMismatch(f"{self.url}/{key} ends {size - len(data):,} bytes too early")
        return data

    def _part(self, name: str, headers: Headers) -> bytes:
        body = self._client.get_object(self._bucket, name, request_headers=headers)
        try:
            return body.read()
        finally:
            body.close()
            body.release_conn()

    @override
    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        name = self._name(key)
        digest = hashlib.sha256(data).hexdigest()
        with self._explained(f"write {key}"):
            if if_absent:
                return self._write_if_absent(name, data, digest)
            self._upload(name, io.BytesIO(data), len(data), digest)
        return True

    @override
    def list(self, prefix: str = "") -> Entries:
        with self._explained(f"list {self.url}/{prefix}"):
            return sorted(self._listed(prefix))

    @override
    def holds(self, prefix: str) -> bool:
        with self._explained(f"look for {self.url}/{prefix}"):
            return next(self._listed(prefix), None) is not None

    @override
    def delete(self, prefix: str) -> None:
        with self._explained(f"delete {prefix}"):
            checked_key(prefix)
            keys = deletion_order(entry.key for entry in self._listed(prefix))
            doomed = [DeleteObject(self._name(key)) for key in keys]
            for failure in self._client.remove_objects(self._bucket, doomed):
                kind = NotAllowed if failure.code == "AccessDenied" else StoreError
                reason = f"{failure.code}: {failure.message}"
                raise self._error(f"delete {failure.name}", reason, kind=kind)

    def _name(self, key: str) -> str:
        return self._root + checked_key(key)

    def _upload(self, name: str, file: BinaryIO, size: int, digest: str) -> None:
        try:
            self._client.put_object(
                self._bucket,
                name,
                file,
                size,
                metadata={_DIGEST: digest},
                part_size=max(PART, math.ceil(size / _MOST_PARTS)),
                num_parallel_uploads=PARALLEL_PARTS,
            )
        except S3Error as error:
            # The upload was completed, but the answer was lost and the request repeated.
            if error.code != "NoSuchUpload" or self._noted(name, _DIGEST) != digest:
                raise

    def _write_if_absent(self, name: str, data: bytes, digest: str) -> bool:
        """Write an object if there is none, then read back whose it is.

        The condition alone does not tell: a store may ignore it, or refuse our repetition of a
        write that did succeed and whose answer was lost.
        """
        if self._stat(name):
            return False
        writer = secrets.token_hex(16)
        try:
            server = self._client.put_if_absent(
                self._bucket, name, data, {_DIGEST: digest, _WRITER: writer}
            )
        except S3Error as error:
            if error.code != "PreconditionFailed":
                raise
            server = error.response.headers.get("Server", "")
        if not server.startswith(_STRICT_SERVERS):
            time.sleep(_SETTLING_SECONDS)
        return self._noted(name, _WRITER) == writer

    def _stat(self, name: str) -> Object | None:
        try:
            return self._client.stat_object(self._bucket, name)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def _noted(self, name: str, field: str) -> str | None:
        """Read a field of an object's user metadata."""
        stat = self._stat(name)
        return (stat.metadata or {}).get(f"x-amz-meta-{field}") if stat else None

    def _listed(self, prefix: str) -> Iterator[Entry]:
        start = f"{self._name(prefix)}/" if prefix else self._root
        if prefix and (single := self._stat(self._name(prefix))):
            yield Entry(prefix, single.size or 0, single.etag or "")
        for listed in self._client.list_objects(self._bucket, prefix=start, recursive=True):
            name = listed.object_name or ""
            if name.endswith("/"):
                continue  # a console's marker of an empty folder
            if not name.startswith(start):
                raise UnsafeKey(f"{self.url} lists {name!r}, which is not under {start!r}")
            key = checked_key(name.removeprefix(self._root))
            yield Entry(key, listed.size or 0, listed.etag or "")

    def _fetch(self, name: str, sink: BinaryIO) -> str:
        """Write an object's content into a file, and return its SHA-256.

        A wrong one is fetched once more.
        """
        try:
            return self._fetch_patiently(name, sink)
        except HashMismatch as error:
            log.warning("fetching once more", reason=str(error))
            return self._fetch_patiently(name, sink)

    def _fetch_patiently(self, name: str, sink: BinaryIO) -> str:
        """Download as long as it goes forward: each break has the whole time for trying again."""
        download = _Download()
        while True:
            reached = download.offset
            try:
                for attempt in attempts(self._settings.retry_seconds):
                    with attempt:
                        self._go_on(name, download, sink)
                break
            except HTTPError as error:
                if not is_transient(error) or download.offset == reached:
                    raise
        digest = download.digest.hexdigest()
        if download.expected not in (None, digest):
            raise HashMismatch(
                f"{self.url} holds something else than was put as {name!r}: SHA-256 {digest}, "
                f"was {download.expected}; make it again, or restore the object"
            )
        return digest

    def _go_on(self, name: str, download: _Download, sink: BinaryIO) -> None:
        """Download from where the last attempt ended, in order, hashing on the way."""
        headers: Headers = {}
        if download.offset:
            headers = {"Range": f"bytes={download.offset}-", "If-Match": download.etag}
        try:
            body = self._client.get_object(self._bucket, name, request_headers=headers)
        except S3Error as error:
            if error.code == "PreconditionFailed":
                raise HashMismatch(f"{name} was replaced while it was fetched") from None
            raise
        try:
            if body.status != HTTPStatus.PARTIAL_CONTENT:
                download.begin(body, sink)
            for chunk in body.stream(_CHUNK, decode_content=False):
                download.digest.update(chunk)
                sink.write(chunk)
                download.offset += len(chunk)
        finally:
            body.close()
            body.release_conn()

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn what the client raises into an error for people.

        The cause is cut off: its frames hold headers with credentials, and some loggers
        print local variables.
        """
        try:
            yield
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise self._error(doing, "there is no such file", kind=KeyNotFound) from None
            if error.code == "AccessDenied" and error.response.data:
                # The answer to a HEAD has no body, and would look the same for a wrong secret.
                reason = f"{error.code}: {error.message}"
                raise self._error(doing, reason, _RIGHTS, NotAllowed) from None
            way_out = _WAYS_OUT.get(error.code or "", "")
            raise self._error(doing, f"{error.code}: {error.message}", way_out) from None
        except SSLError as error:
            raise self._error(doing, str(error), tls_way_out(error)) from None
        except (HTTPError, MinioException) as error:
            way_out = f"check that {self._settings.endpoint or AWS} is right and up"
            raise self._error(doing, str(error), way_out) from None
        except ValueError as error:
            if "header" not in str(error) and not isinstance(error, UnicodeError):
                raise
            reason = "a credential or the region cannot be sent"  # the error's text would show it
            raise self._error(doing, reason, f"{_CREDENTIALS}, and {REGION[0]}") from None

    def _error(
        self, doing: str, reason: str, way_out: str = "", kind: type[StoreError] = StoreError
    ) -> StoreError:
        try:
            access_key = self._credentials.retrieve().access_key
        except Exception:  # a provider that asks the network may fail in any way
            access_key = "unknown"
        return kind(
            f"cannot {doing}: {reason.strip().rstrip('.')}. "
            f"Store {self.url} (bucket {self._bucket}) at "
            f"{self._settings.endpoint or AWS}, access key id {access_key}"
            + (f": {way_out}" if way_out else "")
        )
