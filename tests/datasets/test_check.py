import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import UsageError
from components.datasets.check import check_data
from components.datasets.findings import Fault


def faults_of(kind: str, path: Path, *, decode: bool = False) -> list[str]:
    return [str(fault) for fault in check_data(kind, path, decode=decode).faults]


def edit(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_the_digits_have_no_faults_and_their_counts_are_noted(
    imagenet_folder: Path,
) -> None:
    findings = check_data("imagenet", imagenet_folder, decode=True)
    assert findings.faults == []
    assert findings.counts == {
        "train classes": 10,
        "train images": 60,
        "val classes": 10,
        "val images": 30,
    }
    assert "train images: 60 found, ImageNet-1k as published has 1,281,167" in findings.notes


def test_every_fault_of_imagenet_folders_is_found_at_once(
    imagenet_folder: Path, tmp_path: Path
) -> None:
    train, val = imagenet_folder / "train", imagenet_folder / "val"
    empty, truncated, foreign, inside, linked = sorted((train / "n00000000").iterdir())[:5]
    empty.write_bytes(b"")
    truncated.write_bytes(truncated.read_bytes()[:400])
    foreign.write_bytes(b"<html>404</html>")
    linked.unlink()
    linked.symlink_to(tmp_path / "elsewhere.JPEG")
    data = bytearray(inside.read_bytes())
    data[100:600] = bytes(500)
    inside.write_bytes(data)
    for file in (train / "n00000001").iterdir():
        file.unlink()
    (train / "n00000002" / "notes.txt").touch()
    (train / "n00000003" / "more").mkdir()
    flat = sorted((val / "n00000004").iterdir())
    for file in flat:
        file.rename(val / file.name)
    (val / "n00000004").rmdir()

    faults = faults_of("imagenet", imagenet_folder, decode=True)

    folder = "train/n00000000"
    assert f"{folder}/{empty.name}: is empty" in faults
    assert f"{folder}/{foreign.name}: cannot be decoded: not an image" in faults
    assert f"{folder}/{linked.name}: does not exist" in faults
    assert "train/n00000001 [n00000001]: the class has no images" in faults
    assert "train/n00000003/more: a folder inside of a class is never read" in faults
    for start in (
        f"{folder}/{truncated.name}: is a truncated JPEG",
        f"{folder}/{inside.name}: cannot be decoded",
        f"val: {len(flat)} images lie outside of class folders",
        "val: has other classes than train (1 in train only: n00000004)",
    ):
        assert sum(fault.startswith(start) for fault in faults) == 1, (start, faults)
    assert len(faults) == 9
    notes = check_data("imagenet", imagenet_folder).notes
    assert "train/n00000002/notes.txt: is no image by its name, and not read" in notes


def test_a_missing_split_is_one_fault(imagenet_folder: Path) -> None:
    (imagenet_folder / "val").rename(imagenet_folder / "validation")
    assert faults_of("imagenet", imagenet_folder) == [
        "val: the folder is missing: the layout is ROOT/val/WNID/*.JPEG"
    ]


def test_every_fault_of_inaturalist_is_found_at_once(inaturalist_folder: Path) -> None:
    train = inaturalist_folder / "train2018.json"
    document = json.loads(train.read_text())
    missing, _, twice, unlabelled = document["images"][:4]
    (inaturalist_folder / missing["file_name"]).unlink()

    def spoil(document: Any) -> None:
        document["images"][70]["id"] = twice["id"]
        document["annotations"][3]["image_id"] = 99_999
        document["annotations"][4]["category_id"] = 77
        del document["annotations"][5]["category_id"]
        document["images"][6]["file_name"] = "../../etc/passwd"

    edit(train, spoil)
    edit(
        inaturalist_folder / "val2018.json",
        lambda document: document["categories"][2].update(name="Digitus 5"),
    )

    faults = faults_of("inaturalist", inaturalist_folder)

    annotations = document["annotations"]
    lost = [document["images"][70]["id"], annotations[5]["image_id"]]
    led_out = document["images"][6]["id"]
    expected = [
        f"{missing['file_name']} [{missing['id']}]: does not exist",
        f"train2018.json [{twice['id']}]: images: 2 records share this id",
        f"train2018.json [{annotations[3]['id']}]: annotates image 99999, which does not exist",
        f"train2018.json [{annotations[4]['id']}]: names category 77, which does not exist",
        f"train2018.json [annotations[5], id {annotations[5]['id']}]: has no category_id",
        f"train2018.json [{unlabelled['id']}]: the image has 0 annotations instead of one",
        f"train2018.json [images[6], id {led_out}]: has file_name '../../etc/passwd', "
        "which leads out of the data set's folder",
        "val2018.json: has other classes than train2018.json (1 in train2018.json only: "
        "Digitus 2): a model needs the same in the same order",
        f"train2018.json [{lost[0]}]: annotates image {lost[0]}, which does not exist",
        f"train2018.json [{lost[1]}]: the image has 0 annotations instead of one",
    ]
    assert sorted(faults) == sorted(expected)


def test_annotations_that_do_not_parse_are_one_fault(inaturalist_folder: Path) -> None:
    file = inaturalist_folder / "train2018.json"
    file.write_text(file.read_text()[:-100])
    (fault,) = faults_of("inaturalist", inaturalist_folder)
    assert fault.startswith("train2018.json: is not JSON, perhaps half downloaded")


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "is not a JSON object"), ("{}", "has no list 'images'"), (None, "is missing")],
)
def test_annotations_of_another_form_are_reported(
    inaturalist_folder: Path, content: str | None, message: str
) -> None:
    file = inaturalist_folder / "val2018.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    assert any(message in fault for fault in faults_of("inaturalist", inaturalist_folder))


def test_a_list_that_names_missing_and_repeated_images_is_reported(imagenet_folder: Path) -> None:
    name = "train/n00000000/n00000000_1.JPEG"
    listing = imagenet_folder / "list.txt"
    listing.write_text(f"{name}\n{name}\nmissing.jpg\n")

    findings = check_data("images", listing)

    assert findings.counts == {"images": 3}
    assert findings.faults == [
        Fault("list.txt", name, "is listed 2 times"),
        Fault("missing.jpg", "", "does not exist"),
    ]


def test_images_that_are_nowhere_are_reported(tmp_path: Path) -> None:
    assert "has no images" in faults_of("images", tmp_path)[0]
    assert "neither a folder nor a list" in faults_of("images", tmp_path / "missing")[0]


def test_an_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'imagenet'"):
        check_data("imagnet", tmp_path)


def test_checking_a_layout_imports_no_heavy_library(imagenet_folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from components.datasets.check import check_data; "
        f"assert not check_data('imagenet', Path({str(imagenet_folder)!r})).faults; "
        "sys.exit(bool({'torch', 'cv2', 'scipy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
