"""Servers as people have them: with TLS, in a region, with buckets in host names, with rights."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ExitCode, StoreError
from components.core.store import NotAllowed, Store, open_store
from tests.servers.go import NoServerError
from tests.servers.minio import MinioServer, started_minio

REGION = "eu-west-1"
DOMAIN = "store.test"
AT_ONCE = 30  # seconds: enough for a busy machine, and far from a request's patience of 120


@pytest.fixture(scope="module")
def secure_server() -> Iterator[MinioServer]:
    try:
        with started_minio(tls=True, region=REGION) as server:
            yield server
    except NoServerError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def secure(secure_server: MinioServer) -> tuple[str, dict[str, str]]:
    """A new bucket, and the environment that finds it."""
    return f"s3://{secure_server.make_bucket()}/prefix", secure_server.environment()


def failure(action: Callable[[], object]) -> StoreError:
    """Expect that a store says so at once, although it has its whole patience."""
    start = time.monotonic()
    with pytest.raises(StoreError) as failed:
        action()
    assert time.monotonic() - start < AT_ONCE
    return failed.value


def round_trip(store: Store, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "source").write_bytes(content)
    store.check()
    store.put(tmp_path / "source", "run/weights")
    store.get("run/weights", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content
    assert store.write("run/manifest.json", b"{}", if_absent=True)
    assert [entry.key for entry in store.list("run")] == ["run/manifest.json", "run/weights"]
    store.delete("run")
    assert not store.list()


def test_tls_with_an_authority_of_ones_own(
    secure: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    url, environment = secure
    round_trip(open_store(url, environment), tmp_path)
    # The region is asked for when nobody names it.
    round_trip(open_store(url, {**environment, "AWS_REGION": ""}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_CA_BUNDLE": ""}, "set AWS_CA_BUNDLE to the certificate of the store's authority"),
        ({"AWS_CA_BUNDLE": __file__}, "set AWS_CA_BUNDLE to a PEM file"),
        ({"MOCO_S3_ENDPOINT": "https://localhost:PORT"}, "a name that the store's certificate has"),
        ({"AWS_REGION": "us-east-1"}, "set AWS_REGION to the region of the bucket"),
    ],
)
def test_what_is_wrong_with_tls_or_the_region_is_said_at_once(
    secure: tuple[str, dict[str, str]], changes: dict[str, str], words: str
) -> None:
    url, environment = secure
    port = environment["MOCO_S3_ENDPOINT"].rpartition(":")[2]
    environment |= {name: value.replace("PORT", port) for name, value in changes.items()}
    store = open_store(url, environment)

    for action in (store.check, lambda: store.read("key"), lambda: store.write("key", b"data")):
        failed = failure(action)
        assert failed.exit_code is ExitCode.LOST_STORE
        assert words in str(failed)
        assert environment["MOCO_S3_ENDPOINT"] in str(failed)


def test_an_endpoint_with_the_wrong_scheme_is_told_from_a_wrong_certificate(
    bucket_url: str, secure: tuple[str, dict[str, str]]
) -> None:
    url, environment = secure
    plain = environment["MOCO_S3_ENDPOINT"].replace("https:", "http:")
    store = open_store(url, {**environment, "MOCO_S3_ENDPOINT": plain})
    assert "HTTP request to an HTTPS server" in str(failure(store.check))

    endpoint = os.environ["MOCO_S3_ENDPOINT"].replace("http:", "https:")
    store = open_store(bucket_url, {**os.environ, "MOCO_S3_ENDPOINT": endpoint})

    assert "write http:// before the endpoint" in str(failure(lambda: store.read("key")))


def test_buckets_may_be_in_the_path_or_in_the_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def on_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        """Know the names that a name server would know."""
        here = str(host).endswith(DOMAIN)
        return resolve("127.0.0.1" if here else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", on_loopback)
    try:
        with started_minio(domain=DOMAIN) as server:
            url = f"s3://{server.make_bucket()}/prefix"
            endpoint = server.endpoint.replace("127.0.0.1", DOMAIN)
            environment = {**server.environment(), "MOCO_S3_ENDPOINT": endpoint}
            for style in ("virtual", "path", "auto"):
                store = open_store(url, {**environment, "MOCO_S3_ADDRESSING": style})
                round_trip(store, tmp_path)
    except NoServerError as reason:
        pytest.skip(str(reason))


def test_rights_that_lack_are_told_from_a_wrong_secret(
    bucket_url: str, own_server: MinioServer, tmp_path: Path
) -> None:
    bucket = bucket_url.removeprefix("s3://")
    user, secret = own_server.add_user(bucket, ["s3:GetObject", "s3:ListBucket"])
    open_store(bucket_url).write("run/file", b"theirs")
    reader = {**os.environ, "AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": secret}
    store = open_store(f"{bucket_url}/run", reader)
    source = tmp_path / "source"
    source.write_bytes(b"mine")

    store.check()
    assert store.read("file") == b"theirs"
    for action in (
        lambda: store.put(source, "file"),
        lambda: store.write("file", b"mine"),
        lambda: store.write("new", b"mine", if_absent=True),
    ):
        refused = failure(action)
        assert isinstance(refused, NotAllowed)
        assert refused.exit_code is ExitCode.NO_PERMISSION
        assert f"access key id {user}: give this key the right" in str(refused)
        assert secret not in str(refused)
    assert isinstance(failure(lambda: store.delete("file")), NotAllowed)
    assert store.read("file") == b"theirs"

    wrong = open_store(bucket_url, {**reader, "AWS_SECRET_ACCESS_KEY": f"{secret}x"})
    assert failure(wrong.check).exit_code is ExitCode.LOST_STORE
