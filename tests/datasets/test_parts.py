"""Parts of a data set that do not fit together: found by the check, and refused by training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.dataset import find_dataset
from components.core.errors import DataError
from components.datasets.check import check_data
from components.datasets.findings import Findings
from components.datasets.parts import Part, compare_parts
from components.rendering.config import DigitsConfig, PicturesConfig

SMALL = DigitsConfig(
    train_scenes=40, val_scenes=20, pictures=PicturesConfig(train=20, val=20, pixels=64)
)


def add_line(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text()}{line}\n")


def edit(file: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def leak_voc(root: Path) -> None:
    add_line(root / "VOC2007/ImageSets/Main/test.txt", "000001")


def leak_voc_segmentation(root: Path) -> None:
    lists = root / "VOC2012/ImageSets/Segmentation"
    add_line(lists / "train_aug.txt", (lists / "val.txt").read_text().split()[0])
    name = (lists / "val.txt").read_text().split()[0]
    kept = root / "VOC2012/SegmentationClass" / f"{name}.png"
    shutil.copy(kept, root / "VOC2012/SegmentationClassAug" / kept.name)


def leak_lvis(root: Path) -> None:
    def point(document: Any) -> None:
        image = document["images"][0]
        image["coco_url"] = sorted((root / "train2017").iterdir())[0].relative_to(root).as_posix()

    edit(root / "lvis_v0.5_val.json", point)


def leak_densepose(root: Path) -> None:
    train = json.loads((root / "annotations/densepose_valminusminival2014.json").read_text())

    def point(document: Any) -> None:
        document["images"][0]["file_name"] = train["images"][0]["file_name"]

    edit(root / "annotations/densepose_minival2014.json", point)


def leak_inaturalist(root: Path) -> None:
    train = json.loads((root / "train2018.json").read_text())

    def point(document: Any) -> None:
        document["images"][0]["file_name"] = train["images"][0]["file_name"]

    edit(root / "val2018.json", point)


def other_classes_of_voc(root: Path) -> None:
    (root / "VOC2012/ImageSets/Main/nine_trainval.txt").unlink()


def other_classes_of_coco(root: Path) -> None:
    def drop(document: Any) -> None:
        last = document["categories"].pop()["id"]
        kept = [one for one in document["annotations"] if one["category_id"] != last]
        document["annotations"] = kept

    edit(root / "annotations/instances_val2017.json", drop)


@pytest.mark.parametrize(
    ("name", "port", "spoil", "told"),
    [
        ("voc", "voc", leak_voc, "VOC2007/test [VOC2007/JPEGImages/000001.jpg]: 1 of its images"),
        ("voc_segmentation", "voc", leak_voc_segmentation, "are in train_aug, too"),
        ("lvis", "lvis", leak_lvis, "1 of its images are in "),
        ("densepose", "coco", leak_densepose, "1 of its images are in "),
        ("inaturalist", "inaturalist", leak_inaturalist, "1 of its images are in train2018.json"),
        ("voc", "voc", other_classes_of_voc, "lists other classes than VOC2007"),
        ("coco", "coco", other_classes_of_coco, "has other classes than "),
    ],
)
def test_parts_that_do_not_fit_are_found_and_refused(
    tmp_path: Path, name: str, port: str, spoil: Callable[[Path], None], told: str
) -> None:
    find_dataset(port).load_writer()(SMALL, tmp_path)
    declared = find_dataset(name)
    reader = declared.load(next(iter(declared.readers)))
    reader.read_both(tmp_path)
    assert check_data(name, tmp_path).faults == []

    spoil(tmp_path)

    faults = [str(fault) for fault in check_data(name, tmp_path).faults]
    assert any(told in fault for fault in faults), faults
    with pytest.raises(DataError) as refused:
        reader.read_both(tmp_path)
    assert told in str(refused.value)


def part(name: str, classes: str, files: str, *, measured: bool, keypoints: str = "") -> Part:
    return Part(name, classes.split(), files.split(), measured, keypoints=keypoints.split())


def compared(*parts: Part) -> list[str]:
    findings = Findings()
    compare_parts(parts, findings)
    return [str(fault) for fault in findings.faults]


def test_each_part_is_compared_with_the_first_and_what_is_measured_with_all_others() -> None:
    first = part("a", "x y", "1 2", measured=False)
    assert compared(first, part("b", "x y", "2 3", measured=False)) == []
    assert compared(first, part("b", "x y", "3", measured=True)) == []
    (told,) = compared(first, part("b", "y x", "3", measured=True))
    assert told.startswith("b: has other classes than a (in another order)")
    (told,) = compared(first, part("b", "x z", "3", measured=True))
    assert "1 in b only: z; 1 in a only: y" in told
    (told,) = compared(first, part("b", "x y", "3", measured=True, keypoints="left right"))
    assert told.startswith("b: has other keypoints than a: 2 against 0")
    second = part("b", "x y", "5 7", measured=False)
    told_of = compared(first, second, part("c", "x y", "7 2 9", measured=True))
    assert [fault.partition(",")[0] for fault in told_of] == [
        "c [2]: 1 of its images are in a",
        "c [7]: 1 of its images are in b",
    ]
