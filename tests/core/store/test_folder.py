"""A store in a folder, against a real disk: full, read-only, linked, changed behind its back."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from components.core.errors import DiskFullError, ExitCode, NotWritableError, StoreError
from components.core.store import Entry, FolderStore, HashMismatch, UnsafeKey

MIB = 1 << 20


def test_a_full_disk_keeps_what_was_there(small_disk: Path, tmp_path: Path) -> None:
    store = FolderStore(small_disk / "store")
    store.write("step-1", b"good")
    large = tmp_path / "large"
    large.write_bytes(bytes(2 * MIB))

    for attempt in (
        lambda: store.put(large, "step-1"),
        lambda: store.write("step-1", bytes(2 * MIB)),
        lambda: store.write("step-2", bytes(2 * MIB), if_absent=True),
    ):
        with pytest.raises(DiskFullError, match=str(small_disk)) as failure:
            attempt()
        assert failure.value.exit_code is ExitCode.DISK_FULL

    assert store.read("step-1") == b"good"
    assert [path.name for path in (small_disk / "store").iterdir()] == ["step-1"]


def test_a_fetch_to_a_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.write("run/large", bytes(2 * MIB))

    with pytest.raises(DiskFullError, match=str(small_disk)):
        store.get_folder("run", small_disk)

    assert list(small_disk.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StoreError, match="/proc/no-such"):
        FolderStore(Path("/proc/no-such-folder")).check()


def test_a_read_only_folder_is_refused_with_its_own_exit_code(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(NotWritableError, match=str(small_disk)) as failure:
        FolderStore(small_disk).check()

    assert failure.value.exit_code is ExitCode.NO_PERMISSION


@pytest.fixture(params=[True, False], ids=["attributes", "none"])
def attributes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system takes attributes; NFS, for one, does not."""

    def refused(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if not request.param:
        monkeypatch.setattr(os, "setxattr", refused)
        monkeypatch.setattr(os, "getxattr", refused)
    return bool(request.param)


@pytest.mark.parametrize("content", [b"different", b"short", b""])
def test_a_file_changed_in_place_is_refused(
    tmp_path: Path, attributes: bool, content: bytes
) -> None:
    store = FolderStore(tmp_path)
    store.write("weights", b"as stored")
    if attributes:
        try:
            os.getxattr(tmp_path / "weights", "user.moco.sha256")
        except OSError:
            pytest.skip("this file system keeps no attributes")

    (tmp_path / "weights").write_bytes(content)  # the same inode

    with pytest.raises(HashMismatch, match="weights"):
        store.read("weights")
    with pytest.raises(HashMismatch, match="weights"):
        store.get("weights", tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_hashes_come_and_go_with_their_files(tmp_path: Path, attributes: bool) -> None:
    store = FolderStore(tmp_path / "store")
    (tmp_path / "source").write_bytes(b"first")
    store.put(tmp_path / "source", "run/weights")
    store.write("run/weights", b"second")
    assert store.read("run/weights") == b"second"
    assert store.list() == [Entry("run/weights", 6)]
    copied = tmp_path / "copied"
    copied.write_bytes(b"restored by somebody")
    copied.replace(tmp_path / "store/run/weights")  # another inode
    assert store.read("run/weights") == b"restored by somebody"
    store.delete("run/weights")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not in the store")
    store = FolderStore(tmp_path / "store")
    store.write("run/file", b"data")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "folder").symlink_to(tmp_path)

    for attempt in (
        lambda: store.read("link"),
        lambda: store.get("folder/secret", tmp_path / "got"),
        lambda: store.write("folder/new", b"data"),
        store.list,
        lambda: store.delete("folder"),
    ):
        with pytest.raises(UnsafeKey, match="link"):
            attempt()

    assert (tmp_path / "secret").read_text() == "not in the store"
    assert not (tmp_path / "new").exists()


def test_a_killed_write_leaves_no_listed_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("run/file", b"data")
    (tmp_path / "run" / ".0123.moco-part").write_bytes(b"half")

    assert [entry.key for entry in store.list()] == ["run/file"]
    store.delete("run")
    assert list(tmp_path.iterdir()) == []


def test_a_mount_without_hard_links_still_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = FolderStore(tmp_path)

    assert store.write("manifest.json", b"first", if_absent=True)
    assert not store.write("manifest.json", b"second", if_absent=True)
    assert store.read("manifest.json") == b"first"


def test_a_file_in_a_folders_place_is_explained(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("run", b"data")

    with pytest.raises(StoreError, match="run/file"):
        store.write("run/file", b"data", if_absent=True)
    with pytest.raises(StoreError, match="cannot read"):
        store.put(tmp_path / "absent", "key")
