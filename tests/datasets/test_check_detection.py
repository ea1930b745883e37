import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.datasets.check import check_data

FOLDERS = {
    **{kind: kind for kind in ("coco", "lvis", "voc", "cityscapes")},
    **{"keypoints": "coco", "densepose": "coco", "voc_segmentation": "voc"},
}


@pytest.fixture
def spoiled(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    return tmp_path


def faults_of(kind: str, world: Path, *, decode: bool = False) -> list[str]:
    findings = check_data(kind, world / FOLDERS[kind], decode=decode)
    return [str(fault) for fault in findings.faults]


def edit(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_miniature_has_no_faults(world: Path, kind: str) -> None:
    assert faults_of(kind, world, decode=True) == []


@pytest.mark.parametrize(
    ("kind", "notes"),
    [
        ("coco", ["train2017 images: 60 found, COCO 2017 as published has 118,287"]),
        ("densepose", ["train2014 image files: 22 found, COCO 2014 as published has 82,783"]),
        ("lvis", ["categories: 30 found, LVIS v0.5 as published has 1,230"]),
        ("voc", ["2012 trainval images: 40 found, Pascal VOC as published has 11,540"]),
        (
            "voc_segmentation",
            ["train_aug images: 30 found, Pascal VOC's segmentation as published has 10,582"],
        ),
        (
            "cityscapes",
            ["train images: 30 found, Cityscapes with fine annotations as published has 2,975"],
        ),
    ],
)
def test_counts_that_are_not_the_published_ones_are_noted(
    world: Path, kind: str, notes: list[str]
) -> None:
    assert set(notes) <= set(check_data(kind, world / FOLDERS[kind]).notes)


def test_every_fault_of_coco_is_found_at_once(spoiled: Path) -> None:
    def spoil(document: Any) -> None:
        annotations = document["annotations"]
        plain = [one for one in annotations if not one["iscrowd"]]
        crowd = next(one for one in annotations if one["iscrowd"])
        for number, one in enumerate(plain[:8], 9001):
            one["id"] = number
        plain[0]["image_id"] = 999
        plain[1]["category_id"] = 6
        plain[2]["bbox"] = [1, 2, 3, 0]
        plain[3]["segmentation"] = [[1, 2, 3, 4]]
        plain[4]["bbox"] = []
        plain[5]["id"] = "a word"
        del plain[6]["category_id"]
        plain[7]["bbox"] = [500, 2, 9, 9]
        crowd["id"] = 9009
        crowd["segmentation"]["counts"][0] += 1
        document["images"][3]["width"] += 1
        places.update({one["id"]: place for place, one in enumerate(annotations)})

    places: dict[object, int] = {}
    edit(spoiled / "coco/annotations/instances_train2017.json", spoil)
    (spoiled / "coco/train2017/000000000001.jpg").unlink()
    edit(
        spoiled / "coco/annotations/instances_val2017.json",
        lambda document: document["images"].clear() or document["annotations"].clear(),
    )

    faults = faults_of("coco", spoiled)

    def named(identity: object) -> str:
        place = f"annotations[{places[identity]}], id {identity!r}"
        return f"annotations/instances_train2017.json [{place}]"

    for expected in (
        f"{named(9001)}: names image 999, which does not exist",
        f"{named(9002)}: names category 6, which does not exist",
        f"{named(9003)}: has a box of 3×0 pixels, without area",
        f"{named(9004)}: has a polygon of 2 points instead of 3 or more",
        f"{named(9005)}: has bbox [] instead of four numbers: left, top, width and height",
        f"{named('a word')}: has id 'a word' instead of a whole number",
        f"{named(9007)}: has no category_id",
        "train2017/000000000001.jpg [1]: does not exist",
        "annotations/instances_val2017.json: has no images: "
        "an empty split trains and measures nothing",
    ):
        assert expected in faults
    for start in (
        f"{named(9008)}: has a box from (500, 2) to (509, 11), outside of its image",
        f"{named(9009)}: has a mask whose runs are",
        "train2017/000000000004.jpg [4]: is",
    ):
        assert sum(fault.startswith(start) for fault in faults) == 1
    wide = document_of(spoiled, "train2017")["images"][3]["id"]
    masks = [one for one in faults if "(height, width), its image is" in one]  # of that image's
    assert len(faults) == 12 + len(masks), (wide, faults)


def document_of(world: Path, split: str) -> Any:
    return json.loads((world / f"coco/annotations/instances_{split}.json").read_text())


def test_faults_of_keypoints_and_surfaces_are_found(spoiled: Path) -> None:
    def spoil_keypoints(document: Any) -> None:
        plain = [one for one in document["annotations"] if not one["iscrowd"]]
        plain[0] |= {"id": 9001, "keypoints": plain[0]["keypoints"][:-3]}
        del plain[1]["keypoints"]  # nobody labelled any: that is fine
        plain[2]["id"] = 9003
        plain[2]["keypoints"][2] = 3
        plain[3] |= {"id": 9004, "keypoints": plain[3]["keypoints"][:-1]}

    def spoil_surfaces(document: Any) -> None:
        known = [one for one in document["annotations"] if "dp_x" in one]
        for number, one in enumerate(known[:5], 9001):
            one["id"] = number
        known[0]["dp_U"] = known[0]["dp_U"][1:]
        del known[1]["dp_masks"]
        known[2]["dp_I"][0] = 25.0
        known[3]["dp_V"][0] = 1.5
        mask = next(one for one in known[4]["dp_masks"] if one)
        mask["counts"] = mask["counts"][:-1] + "1"

    annotations = spoiled / "coco/annotations"
    edit(annotations / "person_keypoints_val2017.json", spoil_keypoints)
    edit(annotations / "densepose_train2014.json", spoil_surfaces)
    (spoiled / "coco/densepose/Pdist_matrix.pkl").unlink()

    def without_places(faults: list[str]) -> list[str]:
        return sorted(re.sub(r"annotations\[\d+\], ", "", fault) for fault in faults)

    file = "annotations/person_keypoints_val2017.json"
    first, second, third = without_places(faults_of("keypoints", spoiled))
    assert first == f"{file} [id 9001]: has 16 keypoints, the category names 17"
    assert second == f"{file} [id 9003]: has a keypoint whose visibility is not 0, 1 or 2"
    assert third.startswith(f"{file} [id 9004]: has keypoints of 50 values [")
    file = "annotations/densepose_train2014.json"
    *four, fifth, last = without_places(faults_of("densepose", spoiled))
    assert four == [
        f"{file} [id 9001]: has DensePose points whose coordinates are not equally many",
        f"{file} [id 9002]: has DensePose without dp_masks",
        f"{file} [id 9003]: has a DensePose part that is not 1 to 24",
        f"{file} [id 9004]: has dp_V 1.5, which is not 0 to 1",
    ]
    assert fifth.startswith(f"{file} [id 9005]: has dp_masks that are not run lengths of 256×256")
    assert last == "densepose/Pdist_matrix.pkl: is missing: measuring needs it"


def test_faults_of_lvis_are_found(spoiled: Path) -> None:
    def spoil(document: Any) -> None:
        one = document["annotations"][0]
        image = next(image for image in document["images"] if image["id"] == one["image_id"])
        image |= {"id": image["id"], "neg_category_ids": [one["category_id"], 77]}
        del document["images"][-1]["not_exhaustive_category_ids"]
        document["categories"][4] |= {"frequency": "f"}

    edit(spoiled / "lvis/lvis_v0.5_train.json", spoil)
    (spoiled / "lvis/lvis_v0.5_val.json").unlink()
    findings = check_data("lvis", spoiled / "lvis")
    faults = [str(fault) for fault in findings.faults]
    assert len(faults) == 3
    for message in (
        "neg_category_ids names category 77, which does not exist",
        "the image has no not_exhaustive_category_ids",
        "lvis_v0.5_val.json: is missing",
    ):
        assert sum(message in fault for fault in faults) == 1, message
    assert sum("the category is 'f' with " in note for note in findings.notes) == 1


def test_what_lvis_says_of_an_image_and_does_not_keep_to_is_noted(spoiled: Path) -> None:
    def deny(document: Any) -> None:
        one = document["annotations"][0]
        image = next(image for image in document["images"] if image["id"] == one["image_id"])
        image["neg_category_ids"] = [one["category_id"]]

    edit(spoiled / "lvis/lvis_v0.5_train.json", deny)
    findings = check_data("lvis", spoiled / "lvis")
    assert not findings.faults
    assert sum("which neg_category_ids says that it has not" in one for one in findings.notes) == 1


def test_faults_of_voc_are_found(spoiled: Path) -> None:
    annotations = spoiled / "voc/VOC2007/Annotations"
    for name, old, new in (
        ("000001", "<name>", "<name>un"),
        ("000002", "<ymin>", "<ymin>500"),
        ("000003", "<xmax>", "<xmax>9"),  # is cut off at the edge, as in training
        ("000004", "</annotation>", ""),
    ):
        file = annotations / f"{name}.xml"
        file.write_text(file.read_text().replace(old, new, 1))
    (annotations / "000005.xml").unlink()
    (spoiled / "voc/VOC2007/JPEGImages/000006.jpg").write_bytes(b"")
    main = spoiled / "voc/VOC2007/ImageSets/Main"
    (main / "test.txt").write_text((main / "test.txt").read_text() + "000007\n")
    segmentation = spoiled / "voc/VOC2012/ImageSets/Segmentation"
    (segmentation / "train_aug.txt").write_text(
        (segmentation / "train_aug.txt").read_text() + (segmentation / "val.txt").read_text()
    )
    (spoiled / "voc/VOC2012/SegmentationClass/2008_000001.png").unlink()

    faults = faults_of("voc", spoiled)

    xml = "VOC2007/Annotations"
    for message in (
        f"{xml}/000001.xml [object 1]: is a 'un",
        f"{xml}/000002.xml [object 1]: has a box from",
        f"{xml}/000004.xml: is not a VOC annotation",
        f"{xml}/000005.xml: cannot be read: No such file",
        "VOC2007/JPEGImages/000006.jpg [000006]: is empty",
        "VOC2007/test [VOC2007/JPEGImages/000007.jpg]: 1 of its images are in VOC2007/trainval and "
        "VOC2012/trainval, too",
    ):
        assert sum(fault.startswith(message) for fault in faults) == 1, (message, faults)
    assert len(faults) == 6
    faults = faults_of("voc_segmentation", spoiled)
    assert "VOC2012/SegmentationClass/2008_000001.png: does not exist" in faults
    (shared,) = (fault for fault in faults if "too, which is trained on" in fault)
    assert shared.startswith("val [JPEGImages/2008_0000") and "in train_aug, too" in shared
    (segmentation / "train_aug.txt").unlink()
    assert any("10,582" in fault for fault in faults_of("voc_segmentation", spoiled))


def test_faults_of_cityscapes_are_found(spoiled: Path) -> None:
    images = spoiled / "cityscapes/leftImg8bit/train/inkstadt"
    labels = spoiled / "cityscapes/gtFine/train/inkstadt"
    first, second, third = sorted(path.name.partition("_left")[0] for path in images.iterdir())[:3]
    (images / f"{first}_leftImg8bit.png").unlink()
    (labels / f"{second}_gtFine_instanceIds.png").unlink()
    whole = (labels / f"{third}_gtFine_labelIds.png").read_bytes()
    (labels / f"{third}_gtFine_labelIds.png").write_bytes(whole[:-20])
    shutil.rmtree(spoiled / "cityscapes/leftImg8bit/val")

    faults = faults_of("cityscapes", spoiled)

    folder = "gtFine/train/inkstadt"
    assert f"{folder}/{first}_gtFine_labelIds.png: has no image in leftImg8bit" in faults
    missing = (
        f"{folder}/{second}_gtFine_instanceIds.png: does not exist; cityscapesscripts makes it"
    )
    assert any(fault.startswith(missing) for fault in faults)
    assert any(
        fault.startswith(f"{folder}/{third}_gtFine_labelIds.png: is a trunc") for fault in faults
    )
    assert any(
        fault.startswith("leftImg8bit/val: has no CITY/*_leftImg8bit.png") for fault in faults
    )
    assert len(faults) == 3 + 1 + 10


def test_a_half_unpacked_download_is_found(spoiled: Path) -> None:
    for kind, file in (
        ("coco", "coco/annotations/instances_val2017.json"),
        ("keypoints", "coco/annotations/person_keypoints_train2017.json"),
        ("densepose", "coco/annotations/densepose_valminusminival2014.json"),
    ):
        path = spoiled / file
        path.write_text(path.read_text()[:-100])
        (fault,) = faults_of(kind, spoiled)
        assert "is not JSON, perhaps half downloaded" in fault


def test_checking_detection_imports_no_heavy_library(world: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from components.datasets.check import check_data; "
        f"root = Path({str(world)!r}); "
        "[check_data(kind, root / folder) for kind, folder in "
        f"{list(FOLDERS.items())!r}]; "
        "sys.exit(bool({'torch', 'cv2', 'scipy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
