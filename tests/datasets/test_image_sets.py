import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from components.core.errors import DataError
from components.datasets.check import check_data
from components.vision.decoding import read_image
from components.vision.image_sets import Names
from tests.datasets.readers import read_image_set, read_images


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_names_hold_any_texts(texts: list[str]) -> None:
    names = Names(texts)
    assert list(names) == texts
    assert names[1:3] == texts[1:3]
    if texts:
        assert names[-1] == texts[-1]


def test_imagenet_has_the_order_and_classes_of_torchvisions_reader(imagenet_folder: Path) -> None:
    theirs = ImageFolder(str(imagenet_folder / "train"))

    ours = read_image_set("imagenet", imagenet_folder, "train")

    assert [(ours.path(i), ours.label(i)) for i in range(len(ours))] == theirs.samples
    assert list(ours.classes) == theirs.classes
    assert ours.image_id(0) == "n00000000/n00000000_1.JPEG"


def test_folders_that_systems_add_are_no_classes(imagenet_folder: Path) -> None:
    before = read_image_set("imagenet", imagenet_folder, "train")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        for split in ("train", "val"):
            folder = imagenet_folder / split / name
            folder.mkdir()
            (folder / "image.JPEG").write_bytes(Path(before.path(0)).read_bytes())
    (imagenet_folder / "train/n00000000/._n00000000_1.JPEG").write_bytes(b"\0\5\26\7")
    (imagenet_folder / "train/n00000001").rename(imagenet_folder / "elsewhere")
    (imagenet_folder / "train/n00000001").symlink_to(imagenet_folder / "elsewhere")

    after = read_image_set("imagenet", imagenet_folder, "train")

    assert after.classes == before.classes
    assert list(after.files) == list(before.files)
    assert check_data("imagenet", imagenet_folder, decode=True).faults == []


def test_imagenet_without_a_split_says_what_the_layout_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train"):
        read_image_set("imagenet", tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="train/WNID"):
        read_image_set("imagenet", tmp_path, "train")


def test_inaturalist_labels_follow_category_ids(inaturalist_folder: Path) -> None:
    document = json.loads((inaturalist_folder / "train2018.json").read_text())
    category = {a["image_id"]: a["category_id"] for a in document["annotations"]}

    images = read_image_set("inaturalist", inaturalist_folder, "train")

    assert len(images) == len(document["images"])
    assert images.classes[3] == "Digitus 3"
    for index, record in enumerate(document["images"]):
        assert images.label(index) == category[record["id"]]  # ids are 0 to 9 here
        assert images.image_id(index) == str(record["id"])
        assert images.path(index).endswith(record["file_name"])
    assert read_image(images.path(0)).shape == (48, 48, 3)


def test_broken_inaturalist_annotations_name_the_file_and_the_way_out(
    inaturalist_folder: Path,
) -> None:
    file = inaturalist_folder / "train2018.json"
    file.write_text(file.read_text()[:1000])
    with pytest.raises(DataError, match=r"(?s)moco data check inaturalist.*train2018\.json: is"):
        read_image_set("inaturalist", inaturalist_folder, "train")


def test_any_folder_tree_is_images(imagenet_folder: Path) -> None:
    (imagenet_folder / "notes.txt").write_text("not an image")

    images = read_image_set("images", imagenet_folder, "train")

    assert len(images) == 90
    assert np.all(images.labels == -1)
    assert list(images.files) == sorted(images.files)


def test_a_list_of_images_keeps_its_order(imagenet_folder: Path) -> None:
    names = list(read_images(imagenet_folder).files)[:7][::-1]
    listing = imagenet_folder / "list.txt"
    listing.write_text("\n".join(names) + "\n\n")

    images = read_images(listing)

    assert list(images.files) == names
    assert read_image(images.path(3)).shape == (48, 48, 3)


def test_listed_paths_lead_nowhere_but_into_the_lists_folder(imagenet_folder: Path) -> None:
    names = list(read_images(imagenet_folder).files)[:3]
    listing = imagenet_folder / "list.txt"
    listing.write_text("\n".join(f"{imagenet_folder}/{name}" for name in names))
    assert list(read_images(listing).files) == names
    for name in ("/etc/passwd.png", "../elsewhere.png"):
        listing.write_text(f"{names[0]}\n{name}\n")
        with pytest.raises(
            DataError, match=rf"list\.txt \[{name}\]: leads out of the list's folder"
        ):
            read_images(listing)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        read_images(tmp_path)
