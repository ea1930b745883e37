"""Shares of the labels, and images that are held out where a data set has one split only."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import DataError
from components.datasets.inspection import inspect
from components.datasets.loading import image_reader, segmentation_reader
from components.datasets.masks import digits as masks
from components.datasets.semantic import labelled_masks
from components.rendering.config import DigitsConfig, PicturesConfig
from components.vision.shares import hold_out, labelled, share_of_images
from tests.datasets.readers import read_image_set

Labels = npt.NDArray[np.int64]


@st.composite
def images_with_labels(draw: st.DrawFn) -> tuple[Labels, Labels]:
    """Images of one to three labels, of up to six classes, none of which is empty."""
    classes = draw(st.integers(1, 6))
    sets = draw(st.lists(st.sets(st.integers(0, classes - 1), min_size=1, max_size=3), min_size=20))
    pairs = [(image, label) for image, labels in enumerate(sets) for label in labels]
    owners, labels = np.array(pairs).T
    return owners, labels


@given(images_with_labels(), st.integers(0, 3))
def test_shares_are_nested_exact_and_have_every_class(
    images: tuple[Labels, Labels], seed: int
) -> None:
    owners, labels = images
    total, before = len(np.unique(owners)), np.zeros(0, np.int64)
    for percent in (30.0, 50.0, 77.0, 100.0):
        share = share_of_images(owners, labels, percent, seed, "here")
        assert len(share) == round(total * percent / 100)
        assert (np.diff(share) > 0).all()
        assert np.isin(before, share).all()
        assert {*labels[np.isin(owners, share)]} == {*labels}
        before = share


def test_a_seed_always_draws_the_same_and_another_seed_others() -> None:
    owners, labels = np.arange(1000), np.arange(1000) % 10
    drawn = [share_of_images(owners, labels, 10, seed, "here").tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_classes_keep_their_proportions() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    share = share_of_images(np.arange(1000), labels, 10, 0, "here")
    assert np.bincount(labels[share]).tolist() == [50, 30, 20]


def test_fewer_labels_than_classes_are_refused_with_the_least_share_that_works() -> None:
    owners, labels = np.arange(500), np.arange(500) % 12
    with pytest.raises(DataError, match=r"here: 1 % of 500 labelled images are 5, and 12 are"):
        share_of_images(owners, labels, 1, 0, "here")
    assert len(share_of_images(owners, labels, 2.4, 0, "here")) == 12


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.sampled_from([1.0, 20.0, 100.0]))
def test_of_every_class_some_images_are_held_out_and_some_are_not(
    classes: list[int], percent: float
) -> None:
    labels = np.array(classes)
    held = hold_out(labels, percent)
    for label in {*classes}:
        own = labels == label
        out = int(held[own].sum())
        assert out == min(max(1, round(own.sum() * percent / 100)), own.sum() - 1)


def test_class_folders_without_a_split_are_divided_the_same_way_each_time(
    imagenet_folder: Path, tmp_path: Path
) -> None:
    for place in ("alone", "inside/train"):
        shutil.copytree(imagenet_folder / "train", tmp_path / place)
    reader = image_reader("imagenet")
    pairs = [reader.read_or_divide(tmp_path / place, 20) for place in ("alone", "inside")]
    files = [[{*images.files} for images in pair] for pair in pairs]
    assert files[0] == files[1]
    training, validation = pairs[0]
    assert not {*training.files} & {*validation.files}
    assert len(training) + len(validation) == 60
    assert {*validation.labels} == {*range(10)}
    assert validation.classes == training.classes
    with pytest.raises(DataError, match="val: the folder is missing"):
        reader.read_or_divide(tmp_path / "inside", None)


def test_a_split_that_is_there_is_taken_as_it_is(imagenet_folder: Path) -> None:
    training, validation = image_reader("imagenet").read_or_divide(imagenet_folder, 20)
    assert (len(training), len(validation)) == (60, 30)
    assert [*training.files] == [*read_image_set("imagenet", imagenet_folder, "train").files]


def test_a_part_of_a_set_keeps_ids_labels_and_classes(inaturalist_folder: Path) -> None:
    whole = read_image_set("inaturalist", inaturalist_folder, "train")
    part = labelled(whole, 50, 3)
    assert len(part) == len(whole) // 2
    assert part.classes == whole.classes
    known = {whole.image_id(i): (whole.path(i), whole.label(i)) for i in range(len(whole))}
    told = {part.image_id(i): (part.path(i), part.label(i)) for i in range(len(part))}
    assert told.items() <= known.items()
    assert labelled(whole, 100, 3) is whole


@pytest.fixture
def masks_folder(tmp_path: Path) -> Path:
    sizes = PicturesConfig(train=80, val=20, pixels=64)
    masks.write(DigitsConfig(pictures=sizes), tmp_path / "masks")
    return tmp_path / "masks"


def test_a_share_of_masks_shows_every_class(masks_folder: Path) -> None:
    whole, _ = segmentation_reader("masks").read_both(masks_folder)
    part = labelled_masks(whole, 50, 0)
    assert len(part) == 20
    shown = {label for index in range(20) for label in np.unique(part.labels(index)).tolist()}
    assert shown - {255} == {*range(11)}


@pytest.mark.parametrize(
    ("layout", "kind", "found"),
    [
        ("imagenet", "classification", (60, 30, 10)),
        ("masks", "segmentation", (40, 10, 11)),
        ("coco", "detection", None),
    ],
)
def test_an_inspection_counts_what_a_training_would_read(
    layout: str,
    kind: str,
    found: tuple[int, ...] | None,
    request: pytest.FixtureRequest,
    world: Path,
) -> None:
    folder = world / layout if kind == "detection" else request.getfixturevalue(f"{layout}_folder")
    told = inspect(layout, kind, folder, labels=(60.0, 100.0), held_out=20)  # type: ignore[arg-type]
    if found is None:
        document = json.loads((folder / "annotations/instances_train2017.json").read_text())
        shown = {a["image_id"] for a in document["annotations"] if not a["iscrowd"]}
        found = (len(shown), told.validation, len(document["categories"]))
    assert (told.training, told.validation, told.classes) == found
    assert not told.drawn


def test_an_inspection_says_that_a_split_is_drawn_and_refuses_too_few_labels(
    imagenet_folder: Path,
) -> None:
    shutil.rmtree(imagenet_folder / "val")
    told = inspect("imagenet", "classification", imagenet_folder, held_out=20)
    assert (told.training, told.validation, told.drawn) == (49, 11, True)
    with pytest.raises(DataError, match="10 are needed to show each of 10 classes"):
        inspect("imagenet", "classification", imagenet_folder, labels=(1.0,), held_out=20)
