"""A store seen over a network that toxiproxy spoils: right bytes, or an error in time."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.core.errors import ExitCode, StoreError
from components.core.store import Store, open_store
from tests.servers.minio import MinioServer
from tests.servers.toxiproxy import Link, Toxiproxy

pytestmark = pytest.mark.slow

BUDGET = 10  # seconds that a request is tried again
MARGIN = 90  # seconds for a machine that is busy with other tests
CONTENT = os.urandom(400_000)


@pytest.fixture
def link(minio_server: MinioServer, bucket_url: str, toxiproxy: Toxiproxy) -> Iterator[Link]:
    with toxiproxy.link(minio_server.address) as link:
        yield link


@pytest.fixture
def store(bucket_url: str, link: Link) -> Store:
    """The bucket over the link."""
    environment = {
        **os.environ,
        "MOCO_S3_ENDPOINT": f"http://{link.address}",
        "MOCO_S3_RETRY_SECONDS": str(BUDGET),
    }
    return open_store(bucket_url, environment)


def move(store: Store, folder: Path) -> None:
    """Put and get a folder, and use the small files' calls."""
    for name in ("weights", "metrics.json", "manifest.json"):
        (folder / "source").mkdir(exist_ok=True)
        (folder / "source" / name).write_bytes(CONTENT if name == "weights" else name.encode())
    store.put_folder(folder / "source", "run")
    store.get_folder("run", folder / "got")
    assert (folder / "got" / "weights").read_bytes() == CONTENT
    assert store.read("run/metrics.json") == b"metrics.json"
    assert store.write("run/claim", b"mine", if_absent=True)
    assert not store.write("run/claim", b"theirs", if_absent=True)
    assert len(store.list("run")) == 4
    store.delete("run")
    assert not store.list()


Toxic = tuple[str, str, dict[str, int]]

PASSABLE: list[list[Toxic]] = [
    [("latency", "downstream", {"latency": 100, "jitter": 100})],
    [("latency", "upstream", {"latency": 100, "jitter": 100})],
    [("bandwidth", "downstream", {"rate": 200}), ("bandwidth", "upstream", {"rate": 200})],
    [("slicer", "downstream", {"average_size": 1000, "size_variation": 500, "delay": 100})],
]


@pytest.mark.parametrize("toxics", PASSABLE, ids=lambda toxics: "+".join(t[0] for t in toxics))
def test_a_slow_network_only_delays(
    store: Store, link: Link, tmp_path: Path, toxics: list[Toxic]
) -> None:
    with ExitStack() as stack:
        for kind, direction, attributes in toxics:
            stack.enter_context(link.spoilt(kind, direction, **attributes))
        move(store, tmp_path)


# Every connection breaks, each in its way, again and again; in between the network is well.
BROKEN: list[Toxic] = [
    ("reset_peer", "downstream", {"timeout": 0}),
    ("reset_peer", "upstream", {"timeout": 0}),
    ("timeout", "downstream", {"timeout": 100}),
    ("timeout", "upstream", {"timeout": 100}),
    ("limit_data", "downstream", {"bytes": 100_000}),
    ("limit_data", "upstream", {"bytes": 100_000}),
]


@pytest.mark.parametrize("toxic", BROKEN, ids=lambda toxic: f"{toxic[0]}-{toxic[1]}")
def test_a_network_that_breaks_and_heals_only_delays(
    store: Store, link: Link, tmp_path: Path, toxic: Toxic
) -> None:
    kind, direction, attributes = toxic
    over = threading.Event()

    def spoil() -> None:
        while not over.is_set():
            with link.spoilt(kind, direction, **attributes):
                over.wait(0.7)
            over.wait(1.5)

    network = threading.Thread(target=spoil)
    network.start()
    try:
        for attempt in range(3):
            (tmp_path / str(attempt)).mkdir()
            move(store, tmp_path / str(attempt))
    finally:
        over.set()
        network.join()


@pytest.mark.parametrize("toxic", BROKEN, ids=lambda toxic: f"{toxic[0]}-{toxic[1]}")
def test_a_network_that_stays_broken_is_an_error_in_time(
    store: Store, link: Link, tmp_path: Path, toxic: Toxic
) -> None:
    kind, direction, attributes = toxic
    (tmp_path / "source").write_bytes(CONTENT)
    store.put(tmp_path / "source", "old")
    actions: dict[str, Callable[[], object]] = {
        "got": lambda: store.get("old", tmp_path / "got"),
        "put": lambda: store.put(tmp_path / "source", "new"),
    }
    done = set()

    with link.spoilt(kind, direction, **attributes):
        for name, action in actions.items():
            start = time.monotonic()
            try:
                action()
                done.add(name)
            except StoreError as error:
                assert error.exit_code is ExitCode.LOST_STORE
                assert link.address in str(error)
            assert time.monotonic() - start < BUDGET + MARGIN

    # One direction may be well, and a download goes on where each connection broke.
    assert (len(done) == len(actions)) == ((kind, direction) == ("limit_data", "downstream"))
    assert (tmp_path / "got").exists() == ("got" in done)
    for name, read in (("old", True), ("new", "put" in done)):
        assert not read or store.read(name) == CONTENT
    if "got" in done:
        assert (tmp_path / "got").read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "got"}


def test_a_server_that_comes_back_is_waited_for(store: Store, link: Link, tmp_path: Path) -> None:
    moved = threading.Thread(target=move, args=(store, tmp_path))
    with link.down():
        moved.start()
        time.sleep(4)
        assert moved.is_alive()
    moved.join(BUDGET + MARGIN)
    assert not moved.is_alive()
    assert (tmp_path / "got" / "weights").read_bytes() == CONTENT


def test_a_server_that_stays_away_is_an_error_in_time(store: Store, link: Link) -> None:
    with link.down():
        start = time.monotonic()
        with pytest.raises(StoreError, match="is right and up"):
            store.read("key")
        assert time.monotonic() - start < BUDGET + MARGIN
        with pytest.raises(StoreError, match="is right and up"):
            store.check()
