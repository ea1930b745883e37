"""What a mounted data set holds, and how a change of it is told."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core import content
from components.core.content import Content, describe


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A little of every layout: class folders, JSON, XML, a list, pictures of labels."""
    root = tmp_path / "data"
    for name in ("apple/1.JPEG", "apple/2.JPEG", "pear/1.JPEG"):
        write(root / "train" / name, f"picture {name}")
    write(root / "annotations" / "instances.json", '{"box": [1, 2, 3, 4]}')
    write(root / "VOC2012" / "ImageSets" / "Main" / "train.txt", "2008_01\n")
    write(root / "VOC2012" / "SegmentationClassAug" / "2008_01.png", "labels 1")
    for number in range(120):
        write(root / "VOC2012" / "Annotations" / f"{number}.xml", f"<a>{number % 10}</a>")
    return root


def test_the_same_data_in_another_place_at_another_time_is_the_same(
    data: Path, tmp_path: Path
) -> None:
    before = describe(data)
    moved = tmp_path / "moved" / "elsewhere"
    shutil.copytree(data, moved)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))

    assert describe(moved) == before
    assert describe(moved).digest == before.digest
    assert describe(moved).changes_since(before) == []


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "train/apple/._1.JPEG", "train/.ipynb_checkpoints/1-checkpoint.JPEG"),
        *("@eaDir/1.JPEG", "__MACOSX/train/apple/1.JPEG", "README.txt", "train.tar"),
    ],
)
def test_what_no_stage_reads_does_not_count(data: Path, name: str) -> None:
    before = describe(data)
    write(data / name, "x")

    assert describe(data) == before


def add_class(data: Path) -> None:
    write(data / "train" / "grape" / "1.JPEG", "x")


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a picture added": (
        lambda data: write(data / "train/apple/3.JPEG", "x"),
        ["had 3 pictures, has 4", "train/apple had 2 picture(s), has 3"],
    ),
    "a picture removed": (
        lambda data: (data / "train/apple/2.JPEG").unlink(),
        ["had 3 pictures, has 2", "train/apple had 2 picture(s), has 1"],
    ),
    "a picture renamed": (
        lambda data: (data / "train/apple/2.JPEG").rename(data / "train/apple/0.JPEG"),
        ["train/apple has 2 picture(s) as before, but some have another name or content"],
    ),
    "a picture of another size": (
        lambda data: write(data / "train/pear/1.JPEG", "longer than it was before"),
        ["train/pear is not what it was: picture(s)"],
    ),
    "a picture changed, not its size": (
        lambda data: write(data / "train/pear/1.JPEG", "picture PEAR/1.JPEG"),
        ["train/pear/1.JPEG is not what it was: picture of the same name and size"],
    ),
    "a class added": (
        add_class,
        ["had 3 pictures, has 4", "train/grape is new: 1 picture(s)"],
    ),
    "an empty class added": (
        lambda data: (data / "train" / "grape").mkdir(),
        ["train/grape is new: 0 picture(s)"],
    ),
    "a class removed": (
        lambda data: shutil.rmtree(data / "train" / "pear"),
        ["had 3 pictures, has 2", "train/pear is gone: it had 1 picture(s)"],
    ),
    "a box moved": (
        lambda data: write(data / "annotations/instances.json", '{"box": [1, 2, 3, 5]}'),
        ["annotations/instances.json is not what it was: label file(s)"],
    ),
    "a list changed": (
        lambda data: write(data / "VOC2012/ImageSets/Main/train.txt", "2008_02\n"),
        ["VOC2012/ImageSets/Main/train.txt is not what it was: label file(s)"],
    ),
    "a label picture changed, not its size": (
        lambda data: write(data / "VOC2012/SegmentationClassAug/2008_01.png", "labels 2"),
        ["VOC2012/SegmentationClassAug/2008_01.png is not what it was: label file(s)"],
    ),
    "one of many annotations changed, not its size": (
        lambda data: write(data / "VOC2012/Annotations/7.xml", "<a>8</a>"),
        [
            "VOC2012/Annotations has 120 label file(s) as before, but some have another name or "
            "content"
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_with_its_place(data: Path, change: str) -> None:
    before = describe(data)
    make, told = CHANGES[change]
    make(data)

    assert describe(data).changes_since(before) == told
    assert describe(data).digest != before.digest


def test_pictures_of_a_large_set_are_looked_at_by_a_sample(tmp_path: Path) -> None:
    for number in range(300):
        write(tmp_path / "train" / str(number % 7) / f"{number}.png", f"picture {number:03}")
    before = describe(tmp_path)
    assert len(before.sample) == 64
    assert Content.from_json(json.loads(json.dumps(before.to_json()))) == before
    for path in tmp_path.rglob("*.png"):
        path.write_text(path.read_text().upper())
    after = describe(tmp_path)
    assert after.pictures == before.pictures
    assert after.digest != before.digest
    assert len(after.changes_since(before)) == 11
    untold = Content(before.pictures, before.labels)  # by an earlier version
    assert after.changes_since(untold) == []


def test_many_changes_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a" / "1.png")
    before = describe(tmp_path)
    for number in range(30):
        write(tmp_path / "train" / f"new{number:02d}" / "1.png")

    told = describe(tmp_path).changes_since(before)

    assert told[:2] == ["had 1 pictures, has 31", "train/new00 is new: 1 picture(s)"]
    assert told[-1] == "and 20 more"
    assert len(told) == 12


def test_it_survives_json_with_names_that_are_no_text(data: Path) -> None:
    Path(os.fsdecode(os.fsencode(data) + b"/train/\xff")).mkdir()
    before = describe(data)

    assert Content.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_a_list_counts_with_the_pictures_that_it_names(tmp_path: Path) -> None:
    picture = write(tmp_path / "all" / "1.png", "x")
    write(tmp_path / "all" / "unlisted.png", "x")
    names = write(tmp_path / "list.txt", "all/1.png\nall/missing.png\n")
    before = describe(names)

    assert before.pictures["all"][0] == 2
    picture.write_text("longer")
    assert describe(names).changes_since(before) == [
        "all has 2 picture(s) as before, but some have another name or content"
    ]


def test_linked_class_folders_count_and_a_link_upwards_ends(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "1.png", "x")
    train = tmp_path / "data" / "train"
    train.mkdir(parents=True)
    (train / "apple").symlink_to(tmp_path / "elsewhere")
    (train / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")

    found = describe(tmp_path / "data")

    assert found.pictures["train/apple"][0] == 1
    assert len(found.pictures) < 10


def test_where_folders_are_many_they_count_by_their_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write(tmp_path / "train" / f"{number // 3}" / f"{number}" / "1.png", "x")
    monkeypatch.setattr(content, "_FOLDERS", 2)
    before = describe(tmp_path)
    assert {name: count for name, (count, _) in before.pictures.items()} == {
        "train/0": 3,
        "train/1": 3,
    }
    write(tmp_path / "train" / "0" / "2" / "1.png", "longer")
    assert describe(tmp_path).changes_since(before) == [
        "train/0 has 3 picture(s) as before, but some have another name or content"
    ]
