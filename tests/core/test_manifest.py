from pathlib import Path

import pytest

from components.core.errors import DataError
from components.core.manifest import (
    Code,
    Manifest,
    hash_folder,
    is_safe_name,
    read_manifest,
    verify,
    walk_lineage,
    write_manifest,
)


def artifact(folder: Path, files: dict[str, str], **changes: object) -> Manifest:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    manifest = Manifest(
        stage="pretrain",
        port="encoder",
        kind="Model",
        config={"seed": 0},
        code=Code(version="1", commit=None, digest="d"),
        image="local",
        files=hash_folder(folder),
    ).model_copy(update=changes)
    write_manifest(folder, manifest)
    return manifest


def test_what_was_written_is_verified(tmp_path: Path) -> None:
    written = artifact(tmp_path, {"a.bin": "a", "deep/b.bin": "b"})
    assert verify(tmp_path) == written
    assert set(written.files) == {"a.bin", "deep/b.bin"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "a.bin").write_text("x"), "a.bin has 1 bytes"),
        (lambda f: (f / "a.bin").unlink(), "a.bin is missing"),
        (lambda f: (f / "c.bin").write_text("c"), "c.bin is not in the manifest"),
        (lambda f: (f / "manifest.json").unlink(), "not a finished artifact"),
        (lambda f: (f / "manifest.json").write_text("{"), "is not a manifest"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "is a link"),
    ],
)
def test_a_change_is_refused_and_named(tmp_path: Path, spoil: object, message: str) -> None:
    artifact(tmp_path, {"a.bin": "a"})
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        verify(tmp_path)


def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path) -> None:
    good = artifact(tmp_path, {"a.bin": "a"})
    write_manifest(tmp_path, good.model_copy(update={"files": {"../a.bin": good.files["a.bin"]}}))
    with pytest.raises(DataError, match="would leave its folder"):
        read_manifest(tmp_path)
    assert not any(is_safe_name(name) for name in ("", "/etc", "a/../../b", "..", "a\\b"))
    assert is_safe_name("a/b..c")


def test_lineage_leads_down_to_the_data(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    data = artifact(tmp_path / "a", {f"{i}.jpg": str(i) for i in range(40)}, stage="digits")
    encoder = artifact(tmp_path / "b", {"w": "1"}, inputs={"data": data.lineage()})
    metrics = artifact(tmp_path / "c", {"m": "2"}, inputs={"backbone": encoder.lineage()})
    found = [(depth, port, one.name) for depth, port, one in walk_lineage(metrics.inputs)]
    assert found == [(0, "backbone", "pretrain.encoder"), (1, "data", "digits.encoder")]
    backbone = metrics.inputs["backbone"]
    assert backbone.files["w"].sha256 == encoder.files["w"].sha256
    assert backbone.inputs["data"].file_count == 40
    assert not backbone.inputs["data"].files  # too many to repeat in every manifest
    assert backbone.inputs["data"].digest == data.digest


def test_equal_files_give_equal_digests(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    one = artifact(tmp_path / "a", {"x": "1", "y": "2"})
    two = artifact(tmp_path / "b", {"y": "2", "x": "1"}, stage="other")
    assert one.digest == two.digest
