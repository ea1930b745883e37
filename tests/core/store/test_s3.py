"""A store in a bucket of a real server, over a network that fails in the ways networks do."""

import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
import structlog

from components.core import log
from components.core.errors import DiskFullError, ExitCode, StoreError
from components.core.store import HashMismatch, KeyNotFound, Store, UnsafeKey, open_store
from components.core.store.s3 import PART
from tests.core.store.proxy import Fault, proxy
from tests.servers.minio import MinioServer

SECRET = "canary-6c0e-secret-access-key"  # in no local variable: tracebacks may print those
TOKEN = "canary-77ab-session-token"
AT_ONCE = 30  # seconds: enough for a busy machine, and far from a request's patience of 120


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a second."""
    monkeypatch.setenv("MOCO_S3_RETRY_SECONDS", "1")


def within(seconds: float, action: Callable[[], object]) -> StoreError:
    """Expect a StoreError in time."""
    start = time.monotonic()
    with pytest.raises(StoreError) as failure:
        action()
    assert time.monotonic() - start < seconds
    assert failure.value.exit_code is ExitCode.LOST_STORE
    return failure.value


def everything(store: Store, tmp_path: Path) -> list[Callable[[], object]]:
    source = tmp_path / "source"
    source.write_bytes(b"data")
    return [
        store.check,
        store.list,
        lambda: store.put(source, "key"),
        lambda: store.get("key", tmp_path / "got"),
        lambda: store.read("key"),
        lambda: store.write("key", b"data"),
        lambda: store.write("key", b"data", if_absent=True),
        lambda: store.delete("key"),
        lambda: store.put_folder(tmp_path, "run"),
        lambda: store.get_folder("run", tmp_path / "folder"),
    ]


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_fail_at_once_naming_the_key_id(
    bucket_url: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "somebody-else")
    store = open_store(f"{bucket_url}/prefix")

    for action in everything(store, tmp_path):
        message = str(within(AT_ONCE, action))
        assert os.environ["AWS_ACCESS_KEY_ID"] in message
        assert os.environ["MOCO_S3_ENDPOINT"] in message
        assert bucket_url.removeprefix("s3://") in message
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in message


def test_a_missing_bucket_fails_at_once_by_name(bucket_url: str, tmp_path: Path) -> None:
    store = open_store(f"{bucket_url}-missing/prefix")

    for action in everything(store, tmp_path):
        message = str(within(AT_ONCE, action))
        assert f"{bucket_url.removeprefix('s3://')}-missing" in message
    assert "create the bucket" in str(within(AT_ONCE, store.check))


def test_an_unreachable_endpoint_fails_its_check_at_once(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        port = silent.getsockname()[1]
        for endpoint in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid:9000"):
            monkeypatch.setenv("MOCO_S3_ENDPOINT", endpoint)
            assert endpoint in str(within(AT_ONCE, open_store(bucket_url).check))
    monkeypatch.setenv("MOCO_S3_ENDPOINT", f"http://127.0.0.1:{port}")  # refuses now
    assert "is right and up" in str(within(AT_ONCE, open_store(bucket_url).check))


def test_patience_ends_with_the_budget(bucket_url: str, quick: None, tmp_path: Path) -> None:
    with proxy(os.environ["MOCO_S3_ENDPOINT"], *[("GET", Fault.BUSY)] * 100) as network:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MOCO_S3_ENDPOINT", network.endpoint)
            store = open_store(bucket_url)

        assert "503 SlowDown" in str(within(AT_ONCE, lambda: store.read("key")))
        assert 2 <= len(network.seen) <= 15


FAULTS = [[Fault.RESET], [Fault.BUSY], [Fault.LOST_ANSWER], [Fault.TRUNCATED], list(Fault)]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: "+".join(f.name for f in faults))
def test_a_bad_network_only_delays(
    bucket_url: str, faults: list[Fault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(300_000)
    (tmp_path / "source").write_bytes(content)
    methods = ("PUT", "GET", "HEAD", "DELETE", "POST")
    spoilt = [(method, fault) for method in methods for fault in faults]
    with proxy(os.environ["MOCO_S3_ENDPOINT"], *spoilt) as network:
        monkeypatch.setenv("MOCO_S3_ENDPOINT", network.endpoint)
        store = open_store(bucket_url)

        store.put(tmp_path / "source", "run/file")
        store.get("run/file", tmp_path / "got")
        assert store.read("run/file") == content
        assert [entry.key for entry in store.list("run")] == ["run/file"]
        store.delete("run")
        assert store.list() == []

        assert not [fault for fault in network.faults if fault[0] == "GET"]
    assert (tmp_path / "got").read_bytes() == content


def test_a_download_that_ends_midway_leaves_no_half_file(
    bucket_url: str, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(bucket_url).write("file", os.urandom(100_000))
    gone = [("GET", Fault.TRUNCATED), *[("GET", Fault.RESET)] * 100]
    with proxy(os.environ["MOCO_S3_ENDPOINT"], *gone) as network:
        monkeypatch.setenv("MOCO_S3_ENDPOINT", network.endpoint)
        store = open_store(bucket_url)

        within(AT_ONCE, lambda: store.get("file", tmp_path / "got" / "file"))

    assert list((tmp_path / "got").iterdir()) == []


def test_the_winner_is_told_so_when_the_answer_was_lost(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(os.environ["MOCO_S3_ENDPOINT"], ("PUT", Fault.LOST_ANSWER)) as network:
        monkeypatch.setenv("MOCO_S3_ENDPOINT", network.endpoint)
        store = open_store(bucket_url)

        assert store.write("manifest.json", b"mine", if_absent=True)
        assert network.seen.count("PUT") == 2
        assert not store.write("manifest.json", b"mine", if_absent=True)


def test_a_file_of_many_parts_survives_lost_parts(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1 << 20) * (3 * PART // (1 << 20)) + b"tail"
    (tmp_path / "source").write_bytes(content)
    spoilt = [
        ("PUT", Fault.RESET),
        ("PUT", Fault.LOST_ANSWER),
        ("GET", Fault.TRUNCATED),
        ("GET", Fault.BUSY),
        ("GET", Fault.TRUNCATED),
        ("POST", Fault.LOST_ANSWER),
        ("POST", Fault.LOST_ANSWER),
    ]
    with proxy(os.environ["MOCO_S3_ENDPOINT"], *spoilt) as network:
        monkeypatch.setenv("MOCO_S3_ENDPOINT", network.endpoint)
        store = open_store(bucket_url)

        store.put(tmp_path / "source", "weights")
        # Four parts and the two that were lost: not the whole file again.
        assert network.seen.count("PUT") == 6
        store.get("weights", tmp_path / "got")
        assert network.faults == []
        assert network.seen.count("GET") == 4
        # After a break it went on from there.
        assert network.sent < 1.01 * len(content)

    assert (tmp_path / "got").read_bytes() == content


def test_an_object_that_is_not_what_was_put_is_refused(
    bucket_url: str, minio_server: MinioServer, tmp_path: Path
) -> None:
    wrong: dict[str, str | list[str] | tuple[str]] = {"sha256": "0" * 64}
    bucket = bucket_url.removeprefix("s3://")
    minio_server.client().put_object(bucket, "weights", BytesIO(b"tampered"), 8, metadata=wrong)

    with pytest.raises(HashMismatch, match="weights"):
        open_store(bucket_url).get("weights", tmp_path / "got")

    assert not (tmp_path / "got").exists()


def test_an_object_from_elsewhere_needs_no_digest(
    bucket_url: str, minio_server: MinioServer
) -> None:
    bucket = bucket_url.removeprefix("s3://")
    minio_server.client().put_object(bucket, "models/moco.pth.tar", BytesIO(b"theirs"), 6)
    minio_server.client().put_object(bucket, "models/empty/", BytesIO(b""), 0)

    store = open_store(f"{bucket_url}/models")

    assert store.read("moco.pth.tar") == b"theirs"
    assert [entry.key for entry in store.list()] == ["moco.pth.tar"]


def test_a_prefix_sees_nothing_of_its_neighbours(bucket_url: str) -> None:
    open_store(f"{bucket_url}/run").write("mine", b"1")
    open_store(f"{bucket_url}/run-2").write("theirs", b"2")

    store = open_store(f"{bucket_url}/run/")

    assert [entry.key for entry in store.list()] == ["mine"]
    with pytest.raises(KeyNotFound):
        store.read("theirs")


@pytest.fixture
def hostile_bucket(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve a bucket that lists whatever names are put into the returned list."""
    names: list[str] = []

    class Bucket(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def do_GET(self) -> None:
            listed = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>1</Size></Contents>" for name in names
            )
            body = (
                "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>"
                f"{listed}</ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MOCO_S3_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield names
        server.shutdown()


@pytest.mark.parametrize(
    "name",
    [
        "run/../../escape",
        "run//etc/passwd",
        "run/..\\escape",
        "run/.",
        "elsewhere/file",
        "/etc/passwd",
    ],
)
def test_what_a_hostile_bucket_lists_cannot_escape(
    hostile_bucket: list[str], bucket_url: str, name: str, tmp_path: Path
) -> None:
    hostile_bucket += ["run/good", name]
    store = open_store(bucket_url)

    with pytest.raises(UnsafeKey):
        store.list("run")
    with pytest.raises(UnsafeKey):
        store.get_folder("run", tmp_path / "got")
    with pytest.raises(UnsafeKey):
        store.delete("run")

    assert not (tmp_path / "got").exists()


def test_an_answer_that_breaks_within_its_headers_is_asked_for_again(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's HTTP client gives it out as a whole one that is empty."""
    content = os.urandom(100)
    answer = b"HTTP/1.1 200 OK\r\nETag: 1\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    answers = [answer[: answer.index(b": 1") - 1], answer[: answer.index(b"Length")], answer] * 2

    class Bucket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answers.pop(0))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MOCO_S3_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        store = open_store(bucket_url)
        assert store.read_part("shard", 0, len(content)) == content
        assert store.read("shard") == content
        server.shutdown()
    assert not answers


def test_a_full_disk_ends_a_download_without_a_half_file(bucket_url: str, small_disk: Path) -> None:
    store = open_store(bucket_url)
    store.write("run/large", os.urandom(2 << 20))

    with pytest.raises(DiskFullError, match=re.escape(str(small_disk))):
        store.get_folder("run", small_disk)

    assert list(small_disk.iterdir()) == []


def test_the_secret_is_nowhere(
    bucket_url: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    log.configure(json_lines=True, level="debug")
    request.addfinalizer(structlog.reset_defaults)
    monkeypatch.setenv("MOCO_S3_RETRY_SECONDS", "0.1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    shown = StringIO()  # not a list: a traceback with variables would show all before it
    for endpoint in (os.environ["MOCO_S3_ENDPOINT"], "http://127.0.0.1:1"):
        monkeypatch.setenv("MOCO_S3_ENDPOINT", endpoint)
        store = open_store(bucket_url)
        print(store, [store], vars(store), file=shown)
        for action in everything(store, tmp_path):
            try:
                action()
            except StoreError as error:
                print(error, [error], _traceback_with_variables(error), file=shown)
                log.get_logger("test").error("failed", exc_info=sys.exc_info())

    print(caplog.text, *capfd.readouterr(), file=shown)
    assert "access key id" in shown.getvalue()
    assert SECRET not in shown.getvalue()
    assert TOKEN not in shown.getvalue()


def _traceback_with_variables(error: BaseException) -> str:
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(report.format())


def test_keys_with_a_line_break_at_their_end_reach_a_real_server(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MOCO_S3_ENDPOINT"):
        monkeypatch.setenv(name, f"{os.environ[name]}\n")
    monkeypatch.setenv("AWS_REGION", "us-east-1\n")

    store = open_store(bucket_url)
    store.write("key", b"data")

    assert store.read("key") == b"data"


@pytest.mark.parametrize("key", ["one line\n  and another", "ключ"])
def test_a_key_that_goes_bad_later_gives_an_error_for_people_without_the_signature(
    bucket_url: str, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "credentials"
    profile = "[default]\naws_access_key_id = {}\naws_secret_access_key = abcdefgh\n"
    file.write_text(profile.format("good"))
    environment = {
        "MOCO_S3_ENDPOINT": os.environ["MOCO_S3_ENDPOINT"],
        "AWS_SHARED_CREDENTIALS_FILE": str(file),
        "AWS_REGION": "us-east-1",
    }
    store = open_store(bucket_url, environment)
    file.write_text(profile.format(key))

    for action in everything(store, tmp_path):
        with pytest.raises(StoreError, match=r"(?s)cannot be sent.*check AWS_ACCESS_") as failure:
            action()
        shown = "".join(traceback.format_exception(failure.value))
        assert "Signature=" not in shown
