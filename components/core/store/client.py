"""The minio client with one rule for trying again, and with conditional writes."""

import re
from http import HTTPStatus
from typing import Any

import certifi
import stamina
import urllib3
from minio import Minio
from minio.credentials.providers import Provider
from minio.helpers import genheaders
from urllib3.exceptions import (
    HTTPError,
    NewConnectionError,
    ProtocolError,
    SSLError,
    TimeoutError,  # noqa: A004 - urllib3's base of its timeouts
)

from components.core.store.base import TRANSFERS
from components.core.store.settings import AWS, S3Settings
from components.core.store_environment import CA_BUNDLE

PARALLEL_PARTS = 4

_BUSY = (408, 429, 500, 502, 503, 504)
# Errors of the moment that S3 reports under a status that usually means a mistake of ours.
_BUSY_CODES = (b"RequestTimeout", b"OperationAborted", b"ConditionalRequestConflict")
_CODE = re.compile(rb"<Code>(\w+)</Code>")
# What OpenSSL calls the faults of TLS that a person must heal, and how.
_TLS_WAYS_OUT = {
    "CERTIFICATE_VERIFY_FAILED": (
        f"set {CA_BUNDLE[0]} to the certificate of the store's authority, and the endpoint to a "
        "name that the store's certificate has"
    ),
    "NO_CERTIFICATE_OR_CRL_FOUND": f"set {CA_BUNDLE[0]} to a PEM file that holds certificates",
    "WRONG_VERSION_NUMBER": "the server speaks no TLS there: write http:// before the endpoint",
}


class BusyError(HTTPError):
    """The store answered that it cannot serve the request now."""


def is_transient(error: Exception) -> bool:
    """Tell a fault that time heals from one that a person must."""
    if isinstance(error, SSLError):
        return not tls_way_out(error)
    return isinstance(error, BusyError | NewConnectionError | ProtocolError | TimeoutError)


def tls_way_out(error: SSLError) -> str:
    """Say what heals a fault of TLS; nothing for one of the moment."""
    reasons = (getattr(cause, "reason", "") for cause in error.args)
    return next((_TLS_WAYS_OUT[reason] for reason in reasons if reason in _TLS_WAYS_OUT), "")


def attempts(retry_seconds: float) -> Any:
    """Iterate over attempts at a block until it succeeds, with growing, jittered pauses between.

    `for attempt in attempts(120): with attempt: ...` raises the last error when the time is over.
    """
    return stamina.retry_context(
        on=is_transient,
        attempts=None if retry_seconds else 1,
        timeout=retry_seconds or None,
        wait_max=5.0,
        wait_jitter=0.5,
    )


class RetryingPool(urllib3.PoolManager):
    """Connections on which each single request is tried again while the store is away or busy.

    Here rather than around whole transfers, so that one lost part of many is all that is repeated.
    """

    def __init__(self, settings: S3Settings, timeout: urllib3.Timeout) -> None:
        super().__init__(
            maxsize=TRANSFERS * 2 + PARALLEL_PARTS,
            retries=False,
            timeout=timeout,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.ca_bundle or certifi.where()),
        )
        self._retry_seconds = settings.retry_seconds

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request.

        Raises:
            BusyError: when the time is over and the store is still busy.
            HTTPError: when it cannot be reached.
        """
        # Giving up an upload must not cost the same patience a second time.
        seconds = 0 if method == "DELETE" and "uploadId=" in url else self._retry_seconds
        for attempt in attempts(seconds):
            with attempt:
                # A signature holds for one address only: no redirects.
                response = super().urlopen(method, url, redirect=False, **options)
                _raise_if_busy(response)
                _raise_if_cut(response)
        return response


def _raise_if_busy(response: urllib3.BaseHTTPResponse) -> None:
    if response.status < 400:
        return
    match = _CODE.search(response.data or b"")
    code = match.group(1) if match else b""
    if response.status in _BUSY or code in _BUSY_CODES:
        raise BusyError(f"HTTP {response.status} {code.decode()}".strip())


def _raise_if_cut(response: urllib3.BaseHTTPResponse) -> None:
    """Tell an answer whose connection broke within its headers from one without content.

    Python's HTTP client takes what came of the headers, and then reads to the end, which is there.
    """
    told = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) and not told:
        raise ProtocolError("the connection broke within the headers of an answer")


class Client(Minio):
    """The minio client for given settings."""

    def __init__(
        self, settings: S3Settings, credentials: Provider, timeout: urllib3.Timeout
    ) -> None:
        scheme, _, server = (settings.endpoint or AWS).partition("://")
        super().__init__(
            server,
            secure=scheme == "https",
            region=settings.region,
            credentials=credentials,
            http_client=RetryingPool(settings, timeout),
        )
        if settings.addressing == "virtual":
            self.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        elif settings.addressing == "path":
            self.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    def put_if_absent(self, bucket: str, name: str, data: bytes, metadata: dict[str, str]) -> str:
        """Write an object if there is none, and return which software the server says it is.

        Raises:
            S3Error: with code PreconditionFailed when there is one.
        """
        headers = genheaders(dict(metadata), None, None, None, False)
        headers["If-None-Match"] = "*"
        headers["Content-Type"] = "application/octet-stream"
        result = self._put_object(bucket, name, data, headers)
        return str(result.http_headers.get("Server", ""))
