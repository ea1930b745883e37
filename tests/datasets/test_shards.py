"""Images in shards: packed, found in others' tar files, read as from files, and what is wrong."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.core.content import describe
from components.core.errors import DataError, UsageError
from components.core.store import open_store
from components.core.store.shards import fetch_index
from components.datasets import packing
from components.datasets.check import check_data
from components.datasets.loading import image_reader
from components.datasets.packing import pack
from components.datasets.shards import find_images, index_shards, index_stored_shards
from components.vision.decoding import CorruptImageError, read_bytes, read_image
from components.vision.formats import Split, count_training_images
from components.vision.image_sets import ImageSet
from components.vision.shares import labelled
from pipelines.__main__ import main
from tests.datasets.readers import read_image_set

Content = dict[str, tuple[bytes, int]]


def content(images: ImageSet) -> Content:
    """The bytes and the label of every image, by what it is called."""
    return {
        images.image_id(index): (read_bytes(images.path(index)), images.label(index))
        for index in range(len(images))
    }


def faults(folder: Path, layout: str = "imagenet", *, decode: bool = False) -> list[str]:
    return [str(fault) for fault in check_data(layout, folder, decode=decode).faults]


@pytest.fixture
def packed(imagenet_folder: Path, tmp_path: Path) -> Path:
    pack("imagenet", imagenet_folder, tmp_path / "packed", shard=25)
    return tmp_path / "packed"


def test_packed_images_are_those_of_the_files_in_an_order_of_their_own(
    imagenet_folder: Path, packed: Path
) -> None:
    expected: dict[Split, int] = {"train": 3, "val": 2}
    for split, shards in expected.items():
        files = read_image_set("imagenet", imagenet_folder, split)
        ours = read_image_set("imagenet", packed, split)
        assert content(ours) == content(files)
        assert ours.classes == files.classes
        assert [ours.image_id(i) for i in range(len(ours))] != [*files.files]
        assert len(list((packed / split).glob("*.tar"))) == shards
        assert len({*ours.labels[:25].tolist()}) > 5  # no shard is of a class
    assert faults(packed, decode=True) == []
    assert count_training_images(packed, "imagenet") == 60


@pytest.mark.parametrize("layout", ["images", "inaturalist"])
def test_other_layouts_are_read_under_their_own_name(
    layout: str, imagenet_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = imagenet_folder / "train"
    if layout == "inaturalist":
        shutil.rmtree(imagenet_folder)
        source = request.getfixturevalue("inaturalist_folder")
    before = content(read_image_set(layout, source, "train"))
    pack(layout, source, tmp_path / "shards", shard=7)
    packed = read_image_set(layout, tmp_path / "shards", "train")
    assert content(packed) == before
    assert len(labelled(packed, 50, 0)) == len(packed) // 2 if packed.classes else True
    assert faults(tmp_path / "shards", layout, decode=True) == []


def test_they_are_what_webdataset_reads(packed: Path, imagenet_folder: Path) -> None:
    with tarfile.open(packed / "train/train-000001.tar") as archive:
        names = archive.getnames()
        assert names[:2] == ["000000025.jpeg", "000000025.cls"]
        assert len(names) == 50
        label = archive.extractfile("000000025.cls")
        assert label is not None
        assert 0 <= int(label.read()) < 10


def test_the_same_seed_gives_the_same_bytes_and_what_is_there_is_kept(
    imagenet_folder: Path, packed: Path, tmp_path: Path
) -> None:
    pack("imagenet", imagenet_folder, tmp_path / "again", shard=25, jobs=1)
    assert describe(tmp_path / "again").digest == describe(packed).digest
    pack("imagenet", imagenet_folder, tmp_path / "other", shard=25, seed=1)
    assert describe(tmp_path / "other").digest != describe(packed).digest
    times = {path: path.stat().st_mtime_ns for path in packed.rglob("*.tar")}
    pack("imagenet", imagenet_folder, packed, shard=25)
    assert {path: path.stat().st_mtime_ns for path in packed.rglob("*.tar")} == times
    with pytest.raises(UsageError, match="holds other shards"):
        pack("imagenet", imagenet_folder, packed, shard=30)


def test_an_interrupted_packing_goes_on_where_it_was(
    imagenet_folder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, find = describe(packed).digest, find_images

    def interrupted(path: Path, names: list[str]) -> object:
        if "000002" in path.name:
            raise KeyboardInterrupt
        return find(path, names)

    target = tmp_path / "interrupted"
    monkeypatch.setattr(packing, "find_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack("imagenet", imagenet_folder, target, shard=25, jobs=1)
    assert not (target / "train/index.json").exists()
    times = (target / "train/train-000001.tar").stat().st_mtime_ns
    monkeypatch.undo()

    pack("imagenet", imagenet_folder, target, shard=25)

    assert describe(target).digest == whole
    assert (target / "train/train-000001.tar").stat().st_mtime_ns == times
    assert not list(target.rglob(".*"))


def test_a_source_that_cannot_be_read_is_named(imagenet_folder: Path, tmp_path: Path) -> None:
    lost = sorted((imagenet_folder / "train").rglob("*.JPEG"))[7]
    lost.unlink()
    lost.symlink_to(tmp_path / "nowhere.JPEG")
    with pytest.raises(DataError, match=f"{lost.name} cannot be read: No such file"):
        pack("imagenet", imagenet_folder, tmp_path / "packed", shard=25)
    assert not (tmp_path / "packed/train/index.json").exists()


def drop(root: Path) -> None:
    (root / "train/train-000001.tar").unlink()


def truncate(root: Path) -> None:
    path = root / "train/train-000001.tar"
    path.write_bytes(path.read_bytes()[:-2000])


def change(root: Path) -> None:
    path = root / "val/val-000000.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 255
    path.write_bytes(data)


def lose_places(root: Path) -> None:
    (root / "train/places.bin").write_bytes(b"nothing")


def other_places(root: Path) -> None:
    path = root / "train/places.bin"
    path.write_bytes(path.read_bytes()[::-1])


def lose_list(root: Path) -> None:
    (root / "val/index.json").write_text("{}")


def other_classes(root: Path) -> None:
    document = json.loads((root / "val/index.json").read_text())
    document["classes"][3] = "another"
    (root / "val/index.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "decode", "words"),
    [
        (drop, False, "train/train-000001.tar: is missing"),
        (truncate, False, "train/train-000001.tar: has 90,160 bytes, the index says 92,160"),
        (change, True, "val/val-000000.tar: its bytes are others than the index says"),
        (lose_places, False, "train/places.bin: has 7 bytes, not 960"),
        (other_places, False, "train/index.json: an image has label"),
        (lose_list, False, "val/index.json: is no index of shards"),
        (other_classes, False, "val: has other classes than train"),
    ],
)
def test_what_is_wrong_is_a_fault_and_refused_by_training(
    packed: Path, spoil: Callable[[Path], None], decode: bool, words: str
) -> None:
    spoil(packed)
    assert any(words in fault for fault in faults(packed, decode=decode)), faults(packed)
    if not decode:
        with pytest.raises(DataError, match="cannot be used as it is"):
            image_reader("imagenet").read_both(packed)


def test_an_image_beyond_the_end_is_corrupt_and_names_its_shard(packed: Path) -> None:
    images = read_image_set("imagenet", packed, "train")
    last = max(
        range(25), key=lambda index: int(images.files[index].partition("@")[2].partition("+")[0])
    )
    path = packed / "train" / images.files[last].partition("@")[0]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorruptImageError, match="the shard ends"):
        read_image(images.path(last))


def foreign(folder: Path, *, json_labels: bool = False, labels: bool = True) -> None:
    """Shards as other tools write them: folders in keys, files beside images, any order."""
    for split, count in (("train", 6), ("val", 4)):
        (folder / split).mkdir(parents=True)
        for shard in range(2):
            with tarfile.open(folder / split / f"part{shard}.tar", "w") as archive:
                for number in range(count):
                    parts = {"jpg": b"\xff\xd8 no real image \xff\xd9", "txt": b"a caption"}
                    if labels:
                        label = number % 3
                        parts["cls"] = str(label).encode()
                        if json_labels:
                            del parts["cls"]
                            parts["json"] = json.dumps({"label": label}).encode()
                    for extension, data in sorted(parts.items()):
                        member = tarfile.TarInfo(f"some/{shard}{number}.{extension}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("json_labels", [False, True])
def test_foreign_shards_are_indexed_and_read(tmp_path: Path, json_labels: bool) -> None:
    foreign(tmp_path, json_labels=json_labels)
    assert index_shards(tmp_path) == {"train": 12, "val": 8}
    images = read_image_set("imagenet", tmp_path, "train")
    assert images.classes == ("0", "1", "2")
    assert images.labels.tolist() == [0, 1, 2] * 4
    assert images.image_id(7) == "some/11"
    assert read_bytes(images.path(7)).endswith(b"image \xff\xd9")
    index_shards(tmp_path, classes=["a", "b", "c"])
    assert read_image_set("imagenet", tmp_path, "val").classes == ("a", "b", "c")
    with pytest.raises(DataError, match="a label is 2, and 2 classes are named"):
        index_shards(tmp_path, {"train": "train/*.tar"}, ["a", "b"])


def test_shards_that_lie_side_by_side_are_told_apart_by_their_names(tmp_path: Path) -> None:
    """As timm's imagenet-1k-wds has them."""
    foreign(tmp_path / "parted")
    for path in (tmp_path / "parted").glob("*/*.tar"):
        name = f"imagenet1k-{path.parent.name}-{path.name}"
        (tmp_path / "flat").mkdir(exist_ok=True)
        path.rename(tmp_path / "flat" / name)
    patterns = {"train": "imagenet1k-train-*.tar", "val": "imagenet1k-val-*.tar"}
    assert index_shards(tmp_path / "flat", patterns) == {"train": 12, "val": 8}
    assert faults(tmp_path / "flat") == []
    images = read_image_set("imagenet", tmp_path / "flat", "val")
    assert images.files[0].startswith("../imagenet1k-val-part0.tar@")
    assert read_bytes(images.path(7)).endswith(b"image \xff\xd9")

    store = open_store(tmp_path)
    assert index_stored_shards(store, "flat", patterns) == {"train": 12, "val": 8}
    assert fetch_index(store, "flat", tmp_path / "index")
    images = read_image_set("imagenet", tmp_path / "index", "val")
    assert read_bytes(images.path(7)).endswith(b"image \xff\xd9")
    assert faults(tmp_path / "index") == []


def test_what_cannot_be_indexed_is_named(tmp_path: Path) -> None:
    foreign(tmp_path)
    with pytest.raises(DataError, match=r"has no elsewhere/\*\.tar: name its shards with --train"):
        index_shards(tmp_path, {"train": "train/*.tar", "val": "elsewhere/*.tar"})
    shard = tmp_path / "train/part0.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"part0\.tar"):
        find_images(shard)
    shard.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="is no whole tar file"):
        find_images(shard)


def test_the_commands_pack_index_and_check(
    imagenet_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "shards"
    assert (
        main(["data", "pack", "imagenet", str(imagenet_folder), str(target), "--images", "20"]) == 0
    )
    assert "60 images of train, 30 images of val" in capsys.readouterr().out
    assert main(["data", "check", "imagenet", str(target), "--decode"]) == 0
    assert "train images: 60" in capsys.readouterr().out
    foreign(tmp_path / "others")
    assert main(["data", "index", str(tmp_path / "others")]) == 0
    assert "12 images of train" in capsys.readouterr().out
    assert main(["data", "index", str(imagenet_folder / "train")]) == 65
    assert "has no train/*.tar and no val/*.tar" in capsys.readouterr().err
    assert main(["data", "index", str(target)]) == 64
    assert "was packed here" in capsys.readouterr().err
    assert main(["data", "pack", "imagenet", str(target), str(tmp_path / "twice")]) == 64
    assert "is in shards already" in capsys.readouterr().err


def test_orders_of_a_seed_are_drawn_over_all_images(packed: Path) -> None:
    """Neighbours in a shard were none among the files."""
    images = read_image_set("imagenet", packed, "train")
    places = np.argsort(np.argsort([images.image_id(index) for index in range(60)]))
    distances = np.abs(np.diff(places))
    assert distances.mean() == pytest.approx(60 / 3, rel=0.35)  # of a random order: a third
