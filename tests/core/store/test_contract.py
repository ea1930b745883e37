"""What a folder and a bucket have in common, each against a plain dict."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from components.core.errors import ExitCode
from components.core.store import (
    FolderStore,
    HashMismatch,
    KeyNotFound,
    Store,
    UnsafeKey,
    open_store,
)

# Folders and files have names of their own: a file system takes no file where a folder is.
FOLDERS = st.sampled_from(["", "runs", "runs/one", "runs/one two", "runs/onesie", "ünïcode"])
NAMES = st.sampled_from(["a.json", "b+c.bin", "per%cent #?.txt", "日本.txt", "manifest.json"])
CONTENTS = st.binary(max_size=200)

HOSTILE_KEYS = [
    "",
    "/etc/passwd",
    "../escape",
    "runs/../../escape",
    "./here",
    "runs//double",
    "runs/",
    "runs\\..\\escape",
    "line\nbreak",
    "nul\0byte",
    "x" * 256,
    "/".join(["deep"] * 300),
    "half.moco-part",
]


def joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def under(model: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    return {
        key: data
        for key, data in sorted(model.items())
        if not prefix or key == prefix or key.startswith(f"{prefix}/")
    }


class StoreMachine(RuleBasedStateMachine):
    """Do the same to a store and to a dict."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.model: dict[str, bytes] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="moco-store-"))

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(folder=FOLDERS, name=NAMES, data=CONTENTS)
    def write(self, folder: str, name: str, data: bytes) -> None:
        assert self.store.write(joined(folder, name), data)
        self.model[joined(folder, name)] = data

    @rule(folder=FOLDERS, name=NAMES, data=CONTENTS)
    def write_if_absent(self, folder: str, name: str, data: bytes) -> None:
        key = joined(folder, name)
        assert self.store.write(key, data, if_absent=True) == (key not in self.model)
        self.model.setdefault(key, data)

    @rule(folder=FOLDERS, name=NAMES, data=CONTENTS)
    def put(self, folder: str, name: str, data: bytes) -> None:
        source = self.folder / "source"
        source.write_bytes(data)
        self.store.put(source, joined(folder, name))
        self.model[joined(folder, name)] = data

    @rule(folder=FOLDERS, name=NAMES)
    def read(self, folder: str, name: str) -> None:
        key = joined(folder, name)
        if key in self.model:
            assert self.store.read(key) == self.model[key]
            self.store.get(key, self.folder / "got" / "file")
            assert (self.folder / "got" / "file").read_bytes() == self.model[key]
        else:
            with pytest.raises(KeyNotFound):
                self.store.read(key)
            with pytest.raises(KeyNotFound):
                self.store.get(key, self.folder / "absent")
            assert not (self.folder / "absent").exists()

    @rule(prefix=FOLDERS, files=st.dictionaries(NAMES, CONTENTS, max_size=3))
    def put_folder(self, prefix: str, files: dict[str, bytes]) -> None:
        source = Path(tempfile.mkdtemp(dir=self.folder))
        for name, data in files.items():
            (source / name).write_bytes(data)
        self.store.put_folder(source, prefix)
        self.model.update({joined(prefix, name): data for name, data in files.items()})

    @rule(prefix=FOLDERS)
    def get_folder(self, prefix: str) -> None:
        destination = Path(tempfile.mkdtemp(dir=self.folder))
        expected = under(self.model, prefix)
        if not expected:
            with pytest.raises(KeyNotFound):
                self.store.get_folder(prefix, destination)
            return
        self.store.get_folder(prefix, destination)
        got = {
            joined(prefix, path.relative_to(destination).as_posix()): path.read_bytes()
            for path in destination.rglob("*")
            if path.is_file()
        }
        assert got == expected

    @rule(folder=FOLDERS.filter(bool), name=st.one_of(st.none(), NAMES))
    def delete(self, folder: str, name: str | None) -> None:
        prefix = folder if name is None else joined(folder, name)
        self.store.delete(prefix)
        for key in under(self.model, prefix):
            del self.model[key]

    @rule(folder=FOLDERS, name=NAMES)
    def list_one(self, folder: str, name: str) -> None:
        key = joined(folder, name)
        sizes = [(entry.key, entry.size) for entry in self.store.list(key)]
        assert sizes == [(k, len(data)) for k, data in under(self.model, key).items()]

    @invariant()
    def lists_are_equal(self) -> None:
        for prefix in ("", "runs", "runs/one"):
            sizes = [(entry.key, entry.size) for entry in self.store.list(prefix)]
            assert sizes == [(k, len(data)) for k, data in under(self.model, prefix).items()]


def compare_with_a_dict(new_store: Callable[[], Store], examples: int) -> None:
    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(new_store())

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_a_folder_behaves_as_a_dict(tmp_path: Path) -> None:
    compare_with_a_dict(lambda: FolderStore(Path(tempfile.mkdtemp(dir=tmp_path))), examples=40)


def test_a_bucket_behaves_as_a_dict(bucket_url: str) -> None:
    fresh = iter(range(10**6))
    compare_with_a_dict(lambda: open_store(f"{bucket_url}/try-{next(fresh)}"), examples=20)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "store")
    return open_store(f"{request.getfixturevalue('bucket_url')}/prefix")


def test_a_usable_store_passes_its_check(store: Store) -> None:
    store.check()

    assert store.list() == []


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_key_cannot_leave_the_store(store: Store, key: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"data")

    for attempt in (
        lambda: store.put(source, key),
        lambda: store.get(key, tmp_path / "got"),
        lambda: store.read(key),
        lambda: store.write(key, b"data"),
        lambda: store.write(key, b"data", if_absent=True),
        lambda: store.delete(key),
    ):
        with pytest.raises(UnsafeKey, match="refused"):
            attempt()
    if key:
        with pytest.raises(UnsafeKey):
            store.list(key)
        with pytest.raises(UnsafeKey):
            store.get_folder(key, tmp_path / "folder")
    assert store.list() == []


def test_of_many_concurrent_writers_one_wins(store: Store) -> None:
    for round_ in range(3):
        outcomes: dict[int, bool] = {}
        start = threading.Barrier(6)

        def compete(
            writer: int,
            key: str = f"runs/{round_}/manifest.json",
            start: threading.Barrier = start,
            outcomes: dict[int, bool] = outcomes,
        ) -> None:
            start.wait()
            outcomes[writer] = store.write(key, b"%d" % writer, if_absent=True)

        threads = [threading.Thread(target=compete, args=(writer,)) for writer in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        winners = [writer for writer, won in outcomes.items() if won]
        assert len(outcomes) == 6
        assert store.read(f"runs/{round_}/manifest.json") == b"%d" % winners[0]
        assert len(winners) == 1


def test_a_folder_of_many_files_comes_back_equal(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    expected = {f"part-{n % 7}/{n}.bin": os.urandom(n * 37 % 5000) for n in range(150)}
    expected["manifest.json"] = b"{}"
    for name, data in expected.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)

    store.put_folder(source, "runs/one")
    store.get_folder("runs/one", tmp_path / "got")

    files = [path for path in (tmp_path / "got").rglob("*") if path.is_file()]
    got = {path.relative_to(tmp_path / "got").as_posix(): path.read_bytes() for path in files}
    assert got == expected


def test_parts_of_a_file_are_read_alone(store: Store) -> None:
    content = bytes(range(256)) * 40
    store.write("shards/a.tar", content)
    assert store.read_part("shards/a.tar", 0, len(content)) == content
    assert store.read_part("shards/a.tar", 1_000, 33) == content[1_000:1_033]
    (entry,) = store.list("shards")
    assert store.read_part("shards/a.tar", 5, 5, entry.etag) == content[5:10]
    with pytest.raises(HashMismatch, match=r"a\.tar ends 7 bytes too early"):
        store.read_part("shards/a.tar", len(content) - 3, 10)
    with pytest.raises(KeyNotFound):
        store.read_part("shards/b.tar", 0, 1)


def test_whether_there_is_anything_is_told_of_files_and_folders(store: Store) -> None:
    store.write("runs/one/metrics.json", b"{}")
    assert [store.holds(key) for key in ("runs", "runs/one", "runs/one/metrics.json")] == [True] * 3
    assert [store.holds(key) for key in ("run", "runs/two", "runs/one/metrics")] == [False] * 3


def test_the_manifest_is_stored_after_all_other_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "manifest.json", "z"):
        (tmp_path / name).write_text(name)
    (tmp_path / "unreadable").symlink_to(tmp_path / "a")

    with pytest.raises(UnsafeKey, match="link"):
        store.put_folder(tmp_path, "run")
    assert store.list() == []

    (tmp_path / "unreadable").unlink()
    order: list[str] = []
    put = store.put

    def noted_put(path: Path, key: str) -> None:
        order.append(key)
        put(path, key)

    monkeypatch.setattr(store, "put", noted_put)
    store.put_folder(tmp_path, "run")
    assert order[-1] == "run/manifest.json"


def test_a_folder_is_not_fetched_through_a_link(store: Store, tmp_path: Path) -> None:
    store.write("run/sub/file", b"data")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "sub").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafeKey, match="link"):
        store.get_folder("run", tmp_path / "got")

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_missing_key_names_the_store_and_has_an_exit_code(store: Store) -> None:
    with pytest.raises(KeyNotFound, match="nothing-here") as failure:
        store.read("nothing-here")

    assert store.url in str(failure.value)
    assert failure.value.exit_code is ExitCode.LOST_STORE
