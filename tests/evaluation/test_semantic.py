from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.evaluation.semantic import (
    Confusion,
    evaluate_label_maps,
    read_label_map,
    write_label_map,
)

NAMES = ("ground", "cat", "dog", "sofa")


def test_the_iou_of_a_class_is_that_of_its_pixels_without_the_ignored() -> None:
    random = np.random.default_rng(0)
    confusion = Confusion(NAMES)
    maps = [(random.choice([0, 1, 2, 255], (7, 9)), random.integers(0, 3, (7, 9))) for _ in "abc"]
    for truth, predicted in maps:
        confusion.add(truth, predicted)

    true, found = (np.stack(one) for one in zip(*maps, strict=True))
    counted = true != 255
    expected = {
        name: 100
        * ((true == label) & (found == label)).sum()
        / (((true == label) | (found == label)) & counted).sum()
        for label, name in enumerate(NAMES[:3])
    }
    figures = confusion.figures()
    assert figures.per_class == pytest.approx(expected, abs=1e-12)  # no sofa: left out
    assert figures.values["mIoU"] == pytest.approx(sum(expected.values()) / 3, abs=1e-12)
    share = (true == found)[counted].mean() * 100
    assert figures.values["pixel_accuracy"] == pytest.approx(share, abs=1e-12)
    assert confusion.counts.sum() == counted.sum()


def test_counts_stay_exact_beyond_float_precision() -> None:
    confusion = Confusion(NAMES)
    confusion.counts[0, 0] = 2**53
    confusion.add(np.array([0]), np.array([0]))
    assert confusion.counts[0, 0] == 2**53 + 1


def test_a_pixel_given_no_class_is_missed() -> None:
    confusion = Confusion(NAMES)
    confusion.add(np.array([1, 1]), np.array([1, 255]))
    assert confusion.figures().per_class == {"cat": 50.0}


def test_nothing_to_measure_gives_no_figure() -> None:
    confusion = Confusion(NAMES)
    confusion.add(np.array([255]), np.array([0]))
    assert confusion.figures().values == {}


def test_label_maps_are_read_back_from_palettes_and_grey_values(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 255], [2, 3, 0]], np.uint8)
    truth = Image.fromarray(labels, mode="P")
    truth.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    truth.save(tmp_path / "truth.png")
    write_label_map(tmp_path / "predicted.png", labels)

    np.testing.assert_array_equal(read_label_map(tmp_path / "truth.png"), labels)
    pairs = [(tmp_path / "truth.png", tmp_path / "predicted.png")]
    assert evaluate_label_maps(pairs, NAMES).values["mIoU"] == 100


def test_predictions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    confusion = Confusion(NAMES)
    with pytest.raises(DataError, match=r"prediction is \(2, 2\), the truth \(2, 3\)"):
        confusion.add(np.zeros((2, 3), int), np.zeros((2, 2), int))
    with pytest.raises(DataError, match="the prediction has label 4, but there are 4 classes"):
        confusion.add(np.array([0]), np.array([4]))
    with pytest.raises(DataError, match="the truth has label -1"):
        confusion.add(np.array([-1]), np.array([0]))
    Image.new("RGB", (2, 2)).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match=r"colours\.png has colours \(RGB\) instead of labels"):
        read_label_map(tmp_path / "colours.png")
    with pytest.raises(DataError, match=r"cannot read the label map .*none\.png"):
        read_label_map(tmp_path / "none.png")
