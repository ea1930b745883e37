"""Which images an epoch shows, and how often."""

from pathlib import Path

import numpy as np
import pytest

from components.datasets.loading import detection_reader
from components.detection.order import ImageOrder
from components.detection.splits import learnable, repeat_factors
from tests.datasets.readers import read_lvis, read_part

LYING = np.arange(50) % 3 == 0


def order(factors: np.ndarray, seed: int = 0, alike: int = 2) -> ImageOrder:
    return ImageOrder(factors, LYING[: len(factors)], seed=seed, alike=alike)


def test_repeat_factors_are_those_of_the_definition(world: Path) -> None:
    images = read_lvis(world / "lvis", "train")
    kept = learnable(detection_reader("lvis"), images)
    threshold = 0.3
    seen = [set(images[int(index)].labels.tolist()) for index in kept]
    factors = repeat_factors(images, kept, threshold)
    for own, factor in zip(seen, factors, strict=True):
        shares = [sum(label in other for other in seen) / len(kept) for label in own]
        expected = max(max(1, (threshold / share) ** 0.5) for share in shares)
        assert factor == pytest.approx(expected)
    assert factors.max() > 1.5
    assert factors.min() == 1
    assert (repeat_factors(images, kept, 0) == 1).all()


def test_an_epoch_shows_each_image_as_often_as_its_factor_on_average() -> None:
    factors = np.concatenate([np.ones(20), np.full(20, 1.5), np.full(10, 3.25)])
    made = order(factors)
    assert made.length == int(factors.sum())
    counts = np.stack([np.bincount(made(epoch), minlength=50) for epoch in range(400)])
    assert (counts >= np.floor(factors) - 1).all()  # one place is lost to whole lengths
    assert (counts <= np.ceil(factors)).all()
    np.testing.assert_allclose(counts.mean(0), factors, atol=0.1)


def test_without_repeats_every_image_comes_once() -> None:
    made = order(np.ones(50))
    assert made.length == 50
    for epoch in range(20):
        assert sorted(made(epoch)) == list(range(50))
    assert (made(0) != made(1)).any()
    assert (made(0) != order(np.ones(50), seed=1)(0)).any()
    np.testing.assert_array_equal(made(3), order(np.ones(50))(3))


def test_neighbours_are_alike_but_for_the_last() -> None:
    made = order(np.ones(50), alike=4)
    lying = LYING[made(5)]
    groups = lying[:44].reshape(-1, 4)  # at most three of each are left over
    assert (groups.all(1) | ~groups.any(1)).all()
    assert 0 < groups.all(1).sum() < 11


def test_images_without_an_instance_to_learn_from_are_left_out(world: Path) -> None:
    images = read_part("coco", world / "coco", "train")
    kept = learnable(detection_reader("coco"), images)
    expected = [index for index in range(len(images)) if (~images[index].crowd).any()]
    assert kept.tolist() == expected
    assert len(kept) < len(images)
    poses = read_part("densepose", world / "coco", "train")
    kept = learnable(detection_reader("densepose"), poses)
    assert kept.tolist() == [i for i in range(len(poses)) if any(poses[i].surfaces)]
