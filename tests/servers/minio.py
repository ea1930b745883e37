"""A real MinIO server for the tests: a given one, one in the PATH, or one built with Go.

`python -m tests.servers.minio build` builds it beforehand.
"""

import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin

from tests.servers import go
from tests.servers.go import NoServerError, build, find

# The last commit of the archived repository, as Go names it.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
BINARIES = go.BINARIES
START_SECONDS = 180  # on a machine that is busy with other tests

_ENDPOINT = "MOCO_TEST_S3_ENDPOINT"
_SETTINGS = (
    "MOCO_S3_ENDPOINT",
    "MOCO_S3_ADDRESSING",
    "MOCO_S3_RETRY_SECONDS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
)


@dataclass(frozen=True)
class MinioServer:
    """A running server."""

    endpoint: str  # http://HOST:PORT
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    authority: Path | None = None
    """The certificate to trust."""

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self.endpoint.partition("://")[2]

    def client(self) -> Minio:
        """Open the bare client."""
        return Minio(
            self.address,
            self.access_key,
            self.secret_key,
            secure=self.endpoint.startswith("https:"),
            region=self.region,
            http_client=urllib3.PoolManager(ca_certs=self.authority and str(self.authority)),
        )

    def environment(self) -> dict[str, str]:
        """Give the variables with which `open_store` finds the server."""
        trusted = {"AWS_CA_BUNDLE": str(self.authority)} if self.authority else {}
        return {
            "MOCO_S3_ENDPOINT": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            **trusted,
        }

    def add_user(
        self, bucket: str, actions: Sequence[str], secret: str | None = None
    ) -> tuple[str, str]:
        """Create a user who may do these things in a bucket, and return the key id and secret."""
        admin = MinioAdmin(
            endpoint=self.address,
            credentials=StaticProvider(self.access_key, self.secret_key),
            secure=self.endpoint.startswith("https:"),
        )
        user, secret = f"user-{secrets.token_hex(4)}", secret or secrets.token_hex(16)
        places = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": places}
        admin.user_add(user, secret)
        admin.policy_add(user, policy={"Version": "2012-10-17", "Statement": [allowed]})
        admin.policy_set(user, user)
        return user, secret

    def make_bucket(self) -> str:
        """Create an empty bucket, and return its name."""
        bucket = f"moco-{secrets.token_hex(8)}"
        self.client().make_bucket(bucket)
        return bucket


@pytest.fixture(scope="session")
def minio_server() -> Iterator[MinioServer]:
    """Run a MinIO server for the session, or skip with the reason."""
    try:
        with running_minio() as server:
            yield server
    except NoServerError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def bucket_url(minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make an empty bucket, and set the environment so that `open_store` finds it."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in minio_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{minio_server.make_bucket()}"


@pytest.fixture
def own_server(minio_server: MinioServer) -> MinioServer:
    """Give a server that was started here and may be administered, or skip."""
    if os.environ.get(_ENDPOINT):
        pytest.skip(f"the server of {_ENDPOINT} may not be ours to administer")
    return minio_server


@contextmanager
def running_minio() -> Iterator[MinioServer]:
    """Use the server of the environment, or start one with a temporary folder.

    Raises:
        NoServerError: when there is none, saying what would help.
    """
    given = _given_server()
    if given:
        yield given
        return
    with started_minio() as server:
        yield server


@contextmanager
def started_minio(
    *, host: str = "127.0.0.1", tls: bool = False, region: str = "us-east-1", domain: str = ""
) -> Iterator[MinioServer]:
    """Start a server on loopback with a temporary folder.

    Args:
        host: An address of the loopback interface.
        tls: Speak TLS only, with a certificate of an authority that nobody trusts yet.
        region: What requests must be signed for.
        domain: Below which host names are those of buckets.

    Raises:
        NoServerError: when there is none, saying what would help.
    """
    binary = find("minio") or build("minio", MODULE)
    with tempfile.TemporaryDirectory(prefix="moco-minio-") as name:
        folder = Path(name)
        server = MinioServer(
            f"{'https' if tls else 'http'}://{host}:{free_port()}",
            secrets.token_hex(8),
            secrets.token_hex(16),
            region,
            make_certificates(folder / "certificates") if tls else None,
        )
        process = _start(binary, server, folder, domain)
        try:
            _wait_until_healthy(server, process, folder)
            yield server
        finally:
            process.kill()  # its folder goes too: there is nothing to save
            process.wait()


def make_certificates(folder: Path) -> Path:
    """Make an authority of our own and a certificate of it for loopback, as MinIO reads them.

    Returns:
        The authority's certificate.

    Raises:
        NoServerError: when there is no openssl.
    """
    openssl = shutil.which("openssl")
    if not openssl:
        raise NoServerError("no certificates for a MinIO with TLS: install openssl")
    folder.mkdir()
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    new += ["-nodes", "-days", "2"]
    authority = ["-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.crt"]
    server = ["-subj", "/CN=127.0.0.1", "-keyout", "private.key", "-out", "public.crt"]
    server += ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    server += ["-addext", "basicConstraints=critical,CA:false"]
    for arguments in (authority, server):
        subprocess.run([*new, *arguments], cwd=folder, check=True, capture_output=True)
    return folder / "ca.crt"


def _given_server() -> MinioServer | None:
    endpoint = os.environ.get(_ENDPOINT)
    if not endpoint:
        return None
    try:
        return MinioServer(
            endpoint,
            os.environ["AWS_ACCESS_KEY_ID"],
            os.environ["AWS_SECRET_ACCESS_KEY"],
            os.environ.get("AWS_REGION", "us-east-1"),
        )
    except KeyError as missing:
        raise NoServerError(f"{_ENDPOINT} is set, but {missing} is not") from None


def _start(binary: Path, server: MinioServer, folder: Path, domain: str) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "MINIO_ROOT_USER": server.access_key,
        "MINIO_ROOT_PASSWORD": server.secret_key,
        "MINIO_SITE_REGION": server.region,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CI_CD": "on",
        **({"MINIO_DOMAIN": domain} if domain else {}),
    }
    command = [str(binary), "server", str(folder / "data"), "--address", server.address]
    command += ["--certs-dir", str(folder / "certificates")]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            guarded(command), env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def guarded(command: list[str]) -> list[str]:
    """Let a program die with us even if we are killed, where Linux can."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def _wait_until_healthy(
    server: MinioServer, process: subprocess.Popen[bytes], folder: Path
) -> None:
    trusted = ssl.create_default_context(cafile=server.authority) if server.authority else None
    url = f"{server.endpoint}/minio/health/ready"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1, context=trusted):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    log = (folder / "log").read_text(errors="replace")[-500:]
    raise NoServerError(f"MinIO did not start (exit code {process.poll()}): {log}")


def free_port() -> int:
    """Find a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.servers.minio build")
    print(find("minio") or build("minio", MODULE))
