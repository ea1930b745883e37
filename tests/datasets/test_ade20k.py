"""ADE20K's numbers, which count from 1, and what is wrong with folders of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.datasets.ade20k import digits
from components.datasets.ade20k.reading import CLASSES, CLASSES_FILE
from components.datasets.check import check_data
from components.datasets.loading import segmentation_reader
from components.evaluation.semantic import read_label_map
from components.rendering.config import DigitsConfig, PicturesConfig

SMALL = DigitsConfig(pictures=PicturesConfig(pixels=64, train=20, val=20))
READER = segmentation_reader("ade20k")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    digits.write(SMALL, tmp_path)
    return tmp_path


def faults(folder: Path, *, decode: bool = True) -> list[str]:
    return [str(fault) for fault in check_data("ade20k", folder, decode=decode).faults]


def labels_of(folder: Path, split: str = "training", index: int = 0) -> Path:
    return sorted((folder / "annotations" / split).iterdir())[index]


def test_numbers_of_files_count_from_one_and_zero_does_not_count(folder: Path) -> None:
    training, validation = READER.read_both(folder)
    assert (len(training), len(validation)) == (10, 10)
    assert training.classes == digits.CLASSES
    for index in range(10):
        numbers = read_label_map(training.root / training.label_files[index]).astype(np.int64)
        expected = np.where(numbers == 0, 255, numbers - 1)
        np.testing.assert_array_equal(training.labels(index), expected)
        assert {0, 1} <= {*np.unique(numbers)}
    assert faults(folder) == []


def test_predictions_have_the_benchmarks_numbers(folder: Path, tmp_path: Path) -> None:
    _, validation = READER.read_both(folder)
    (tmp_path / "predictions").mkdir()
    for index in range(len(validation)):
        labels = validation.labels(index)
        said = np.where(labels == 255, 0, labels)  # where nothing counts, anything goes
        path = tmp_path / "predictions" / READER.prediction_name(validation.image_id(index))
        path.write_bytes(READER.encode(said))
        np.testing.assert_array_equal(read_label_map(path), said + 1)
        back = READER.decode(tmp_path / "predictions", validation.image_id(index))
        np.testing.assert_array_equal(back, said)

    figures = READER.measure(validation, "validation", tmp_path / "predictions")

    assert figures.values == {"mIoU": 100.0, "pixel_accuracy": 100.0}
    # A server's file of another code base: 0 is no class, and counts as missed.
    path = next((tmp_path / "predictions").iterdir())
    Image.fromarray(np.zeros_like(read_label_map(path))).save(path)
    figures = READER.measure(validation, "validation", tmp_path / "predictions")
    assert 85 < figures.values["pixel_accuracy"] < 95


def test_without_a_list_of_classes_they_are_the_published_ones(folder: Path) -> None:
    (folder / CLASSES_FILE).unlink()
    training, _ = READER.read_both(folder)
    assert training.classes == CLASSES
    assert len({*CLASSES}) == 150
    assert (CLASSES[0], CLASSES[12], CLASSES[-1]) == ("wall", "person", "flag")


def test_the_first_synonym_of_the_published_list_is_taken(folder: Path) -> None:
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.15\t11664\t1172\t1\twall"]
    rows.append("2\t0.11\t6046\t612\t1\tbuilding, edifice")
    (folder / CLASSES_FILE).write_text("\n".join(rows))
    training, _ = READER.read_both(folder)
    assert training.classes == ("wall", "building")


def test_what_is_wrong_with_a_folder_is_found(folder: Path) -> None:
    shifted, large, colours, gone = (labels_of(folder, index=index) for index in range(4))
    numbers = read_label_map(shifted)
    Image.fromarray(np.where(numbers == 0, 255, numbers - 1).astype(np.uint8)).save(shifted)
    Image.fromarray(np.full_like(read_label_map(large), 12)).save(large)
    Image.open(colours).convert("RGB").save(colours)
    gone.unlink()
    alone = folder / "annotations/validation/ADE_val_00000099.png"
    shutil.copy(labels_of(folder, "validation"), alone)

    found = faults(folder)

    training = "annotations/training"
    for start in (
        f"{training}/{shifted.name}: no number over",
        f"{training}/{large.name}: the number 12, where 0 to 11 can be",
        f"{training}/{colours.name}: colours or numbers over 255",
        f"{training}/{gone.name}: does not exist",
        f"annotations/validation/{alone.name}: has no image in images/validation",
    ):
        assert sum(fault.startswith(start) for fault in found) == 1, (start, found)
    assert len(found) == 5
    with pytest.raises(DataError, match=f"moco data check ade20k .*\n.*{alone.name}"):
        READER.read_both(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Idx\tName\n1\twall\n3\tsky\n", "has no row of a number, counting from 1"),
        ("Idx\tName\n1\t\n", "has no row of a number, counting from 1"),
        ("Idx\tName\n", "lists 0 classes"),
        ("", "lists 0 classes"),
    ],
)
def test_a_list_of_classes_that_is_none_is_refused(folder: Path, text: str, told: str) -> None:
    (folder / CLASSES_FILE).write_text(text)
    assert any(fault.startswith(f"{CLASSES_FILE}: {told}") for fault in faults(folder))


def test_another_folder_says_what_the_layout_is(tmp_path: Path) -> None:
    (tmp_path / "images/ADE").mkdir(parents=True)
    found = faults(tmp_path)
    assert found[0].startswith("images/training: has no *.jpg: the layout is ROOT/images/training")
    assert "ADEChallengeData2016" in found[0]
