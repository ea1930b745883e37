"""Crops: where they lie, what they hold, and that they do not depend on who loads them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.core.errors import DataError
from components.segmentation import SegmentationConfig
from components.segmentation.data import (
    Labels,
    SegmentationBatch,
    SegmentationSample,
    crops,
    cut,
    draw_window,
    whole_images,
)
from components.vision.config import LoaderConfig
from tests.datasets.readers import read_set
from tests.segmentation.making import tiny

CONFIG = SegmentationConfig(crop=65)
PADDING = (123.675, 116.28, 103.53)


def windows(height: int, width: int, count: int = 300) -> list[tuple[float, float]]:
    """Return the scales of many windows, which must lie within the image and the crop."""
    generator = np.random.default_rng(0)
    scales = []
    for _ in range(count):
        window = draw_window(CONFIG, height, width, generator)
        assert 0 <= window.top <= height - window.height
        assert 0 <= window.left <= width - window.width
        assert 0 < window.to_height <= CONFIG.crop
        assert 0 < window.to_width <= CONFIG.crop
        scales.append((window.to_height / window.height, window.to_width / window.width))
    return scales


def test_scales_are_uniform_between_half_and_double_and_keep_the_aspect() -> None:
    scales = np.array(windows(90, 120))
    assert np.abs(scales[:, 0] / scales[:, 1] - 1).max() < 0.03  # whole pixels
    assert scales.min() > 0.49
    assert scales.max() < 2.05
    quartiles = np.quantile(scales[:, 0], (0.25, 0.5, 0.75))
    np.testing.assert_allclose(quartiles, (0.875, 1.25, 1.625), atol=0.12)


def test_an_image_that_is_smaller_than_the_crop_is_shown_whole() -> None:
    window = draw_window(CONFIG.derive(scale=(1, 1)), 20, 200, np.random.default_rng(0))
    assert (window.height, window.to_height) == (20, 20)
    assert (window.width, window.to_width) == (65, 65)


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_labels_stay_on_their_pixels(scale: float, flip: float) -> None:
    labels = np.zeros((90, 120), np.uint8)
    labels[30:71, 25:88] = 7
    image = np.repeat(labels[..., None] * 30, 3, axis=2)
    config = CONFIG.derive(scale=(scale, scale), flip_probability=flip)
    for seed in range(10):
        window = draw_window(config, 90, 120, np.random.default_rng(seed))
        found = cut(SegmentationSample(image, labels), window)
        inside = found.image[..., 0] > 105
        # The edges agree to the pixel that a rounding may decide.
        wrong = np.count_nonzero(inside != (found.labels == 7))
        assert wrong <= inside.shape[0] + inside.shape[1]
        assert set(np.unique(found.labels)) <= {0, 7}
    whole = cut(
        SegmentationSample(image, labels), window._replace(top=0, left=0, height=90, width=120)
    )
    left = np.flatnonzero(whole.labels.any(0))[0] / whole.labels.shape[1]
    assert left == pytest.approx((120 - 88) / 120 if flip else 25 / 120, abs=0.02)


def test_what_no_image_covers_does_not_count(voc_folder: Path) -> None:
    images = read_set("voc", voc_folder, "train_aug")
    config = tiny("voc", crop=97, scale=(0.5, 0.5))
    for batch in crops(images, config, PADDING).epoch(0):
        for index, pixels, labels in zip(batch.indices, batch.images, batch.labels, strict=True):
            height, width = (round(side / 2) for side in images.labels(int(index)).shape)
            assert (labels[:height, :width] != 255).any()
            assert (labels[height:] == 255).all()
            assert (labels[:, width:] == 255).all()
            assert (pixels[:, height:] == torch.tensor([124, 116, 104])[:, None, None]).all()


def epoch(
    config: SegmentationConfig, folder: Path, number: int, first: int = 0
) -> list[SegmentationBatch]:
    images = read_set("voc", folder, "train_aug")
    return list(crops(images, config, PADDING).epoch(number, first))


def test_batches_are_the_same_whoever_loads_them_and_from_any_step(voc_folder: Path) -> None:
    config = tiny("voc")
    whole = epoch(config, voc_folder, 3)
    assert len(whole) == 6
    others = epoch(config.derive(loader={"workers": 2}), voc_folder, 3, first=2)
    for one, same in zip(whole[2:], others, strict=True):
        assert torch.equal(one.images, same.images)
        assert torch.equal(one.labels, same.labels)
    again = epoch(config, voc_folder, 4)
    assert not torch.equal(
        torch.cat([b.indices for b in whole]), torch.cat([b.indices for b in again])
    )


def test_an_unreadable_image_is_replaced_listed_and_the_rest_is_as_it_was(
    voc_folder: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(voc_folder, tmp_path / "data")
    broken = read_set("voc", data, "train_aug").path(5)
    Path(broken).write_bytes(b"\xff\xd8 no more")
    before, after = (epoch(tiny("voc"), folder, 0) for folder in (voc_folder, data))
    assert [image.file for batch in after for image in batch.corrupt] == [broken]
    for one, other in zip(before, after, strict=True):
        same = one.indices != 5
        assert torch.equal(one.images[same], other.images[same])
        assert (other.indices != 5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[1:], "the image is .* its labels"),
        (lambda labels: labels + 15, "class [0-9]+ of 11 classes"),
    ],
    ids=["size", "class"],
)
def test_labels_that_do_not_fit_are_refused_by_name(
    change: Callable[[Labels], Labels], message: str, voc_folder: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(voc_folder, tmp_path / "data")
    images = read_set("voc", data, "val")
    path = images.root / images.label_files[2]
    Image.fromarray(change(np.array(Image.open(path)))).save(path)
    with pytest.raises(DataError) as refused:
        list(whole_images(images, LoaderConfig(workers=0)).epoch(0))
    assert re.search(
        f"1 of 10 images.*/{Path(images.path(2)).name}: .*{message}", str(refused.value), re.S
    )


def test_whole_images_come_once_in_the_order_of_the_set(cityscapes_folder: Path) -> None:
    images = read_set("cityscapes", cityscapes_folder, "val")
    batches = list(whole_images(images, LoaderConfig(workers=0)).epoch(0))
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10))
    for index, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.labels[0].numpy(), images.labels(index))
