"""Images beside masks: what is read, and what is wrong with folders of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets.check import check_data
from components.datasets.loading import segmentation_reader
from components.datasets.masks import digits
from components.rendering.config import DigitsConfig, PicturesConfig

SMALL = DigitsConfig(pictures=PicturesConfig(pixels=64, train=20, val=20))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    digits.write(SMALL, tmp_path)
    return tmp_path


def faults(folder: Path, *, decode: bool = True) -> list[str]:
    return [str(fault) for fault in check_data("masks", folder, decode=decode).faults]


def test_numbers_are_classes_in_the_order_of_the_list(folder: Path) -> None:
    training, validation = segmentation_reader("masks").read_both(folder)
    assert training.classes == validation.classes == digits.CLASSES
    assert (len(training), len(validation)) == (10, 10)
    for index in range(10):
        with Image.open(training.root / training.label_files[index]) as stored:
            np.testing.assert_array_equal(training.labels(index), np.array(stored))
    assert faults(folder) == []


def test_images_may_be_of_any_kind_and_their_masks_have_their_names(folder: Path) -> None:
    first = folder / "images/train/0000.jpg"
    with Image.open(first) as image:
        image.save(folder / "images/train/0000.png")
    first.unlink()
    training, _ = segmentation_reader("masks").read_both(folder)
    assert training.files[0] == "images/train/0000.png"
    assert faults(folder) == []


def break_list(folder: Path, text: str | None) -> None:
    (folder / "classes.txt").unlink()
    if text is not None:
        (folder / "classes.txt").write_text(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "classes.txt: is missing: it has a class name a line"),
        ("ground\n", "classes.txt: has 1 names, where 2 to 254 can be told apart"),
        ("a\nb\na\n", "classes.txt: lists a more than once"),
        ("ground\none\n", "of 2 classes (0 to 1, 255 where a pixel does not count)"),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_a_fault(
    folder: Path, text: str | None, words: str
) -> None:
    break_list(folder, text)
    assert any(words in fault for fault in faults(folder))


def test_an_image_without_a_mask_and_a_mask_without_an_image_are_faults(folder: Path) -> None:
    (folder / "masks/train/0003.png").unlink()
    (folder / "images/val/0004.jpg").unlink()
    (folder / "images/train/0005.png").write_bytes(b"")
    told = faults(folder, decode=False)
    assert "images/train/0003.jpg: has no mask in masks/train" in told
    assert "masks/val/0004.png: has no image in images/val" in told
    assert any("0005.png: is called like 0005.jpg beside it" in fault for fault in told)


def test_a_missing_folder_says_what_the_layout_is(folder: Path) -> None:
    (folder / "masks/val").rename(folder / "masks/validation")
    assert faults(folder) == ["masks/val: the folder is missing: the layout is ROOT/masks/val/*"]
