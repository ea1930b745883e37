"""A real MinIO server for the tests: a given one, one in the PATH, or one built with Go.

`python -m tests.servers.minio build` builds it beforehand.
"""

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from minio import Minio

# The last commit of the archived repository, as Go names it.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
BINARIES = Path.home() / ".cache" / "moco-transfer" / "bin"
BUILD_SECONDS = 1800
START_SECONDS = 60

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
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
)


class NoServerError(Exception):
    """There is no MinIO server here, and none can be built."""


@dataclass(frozen=True)
class MinioServer:
    """A running server."""

    endpoint: str  # http://HOST:PORT
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def client(self) -> Minio:
        """Open the bare client."""
        scheme, _, server = self.endpoint.partition("://")
        return Minio(
            server, self.access_key, self.secret_key, secure=scheme == "https", region=self.region
        )

    def environment(self) -> dict[str, str]:
        """Give the variables with which `open_store` finds the server."""
        return {
            "MOCO_S3_ENDPOINT": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

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
    binary = find_binary() or build_binary()
    with tempfile.TemporaryDirectory(prefix="moco-minio-") as folder:
        server = MinioServer(
            f"http://127.0.0.1:{_free_port()}", secrets.token_hex(8), secrets.token_hex(16)
        )
        process = _start(binary, server, Path(folder))
        try:
            _wait_until_healthy(server, process, Path(folder))
            yield server
        finally:
            process.kill()  # its folder goes too: there is nothing to save
            process.wait()


def find_binary() -> Path | None:
    """Look for a server in the PATH and in the cache."""
    cached = BINARIES / "minio"
    if cached.is_file():
        return cached
    found = shutil.which("minio")
    return Path(found) if found else None


def build_binary() -> Path:
    """Build the server with Go into the cache; of several processes one builds.

    Raises:
        NoServerError: when Go is missing or the build fails.
    """
    go = shutil.which("go")
    if not go:
        raise NoServerError(f"no MinIO server: set {_ENDPOINT}, install `minio`, or install Go")
    BINARIES.mkdir(parents=True, exist_ok=True)
    with (BINARIES / ".minio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        binary = BINARIES / "minio"
        if not binary.is_file():
            environment = {**os.environ, "GOBIN": str(BINARIES), "CGO_ENABLED": "0"}
            done = subprocess.run(
                [go, "install", "-trimpath", MODULE],
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
            if done.returncode or not binary.is_file():
                raise NoServerError(f"MinIO was not built: {done.stderr.strip()[-500:]}")
        return binary


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


def _start(binary: Path, server: MinioServer, folder: Path) -> subprocess.Popen[bytes]:
    host = server.endpoint.removeprefix("http://")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "MINIO_ROOT_USER": server.access_key,
        "MINIO_ROOT_PASSWORD": server.secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CI_CD": "on",
    }
    # Where Linux can, the server dies with us even if we are killed.
    setpriv = shutil.which("setpriv")
    guarded = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*guarded, str(binary), "server", str(folder / "data"), "--address", host],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _wait_until_healthy(
    server: MinioServer, process: subprocess.Popen[bytes], folder: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/minio/health/ready", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    log = (folder / "log").read_text(errors="replace")[-500:]
    raise NoServerError(f"MinIO did not start (exit code {process.poll()}): {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m tests.servers.minio build")
    print(find_binary() or build_binary())
