from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import ConfigError, DataError
from components.vision.batch import Batch, CorruptImage
from components.vision.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentationConfig,
    EvaluationConfig,
    LoaderConfig,
    moco_v1,
    moco_v2,
)
from components.vision.device import finish_views
from components.vision.image_sets import ImageSet
from components.vision.loading import Loader, make_loader
from components.vision.quarantine import Quarantine
from components.vision.sampling import EpochSampler
from tests.datasets.readers import read_image_set

IN_PROCESS = LoaderConfig(workers=0, max_corrupt_fraction=0.1)


@pytest.fixture
def images(imagenet_folder: Path) -> ImageSet:
    return read_image_set("imagenet", imagenet_folder, "train")


def training_loader(
    images: ImageSet,
    config: LoaderConfig = IN_PROCESS,
    augmentation: AugmentationConfig | None = None,
    rank: int = 0,
    world: int = 1,
) -> Loader:
    return make_loader(
        images,
        augmentation or moco_v2(32),
        config,
        batch_size=16,
        views=2,
        seed=3,
        rank=rank,
        world=world,
    )


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)
        for view, same in zip(one.views, other.views, strict=True):
            assert torch.equal(view, same)
        for colours, same_colours in zip(one.colours, other.colours, strict=True):
            assert torch.equal(colours.mix, same_colours.mix)
            assert torch.equal(colours.hue, same_colours.hue)


@given(
    length=st.integers(1, 300),
    share=st.integers(1, 20),
    world=st.integers(1, 4),
    drop_last=st.booleans(),
)
def test_ranks_together_see_what_one_process_would(
    length: int, share: int, world: int, drop_last: bool
) -> None:
    batch = share * world
    if drop_last and length < batch:
        return
    alone = EpochSampler(length, batch, seed=1, drop_last=drop_last)
    ranks = [
        EpochSampler(length, batch, seed=1, rank=rank, world=world, drop_last=drop_last)
        for rank in range(world)
    ]
    seen = []
    for step in range(alone.steps):
        together = np.concatenate([rank.indices(5, step) for rank in ranks])
        np.testing.assert_array_equal(together, alone.indices(5, step))
        seen += together.tolist()
    assert len(seen) == len(set(seen))
    assert len(seen) == (length // batch * batch if drop_last else length)


def test_every_epoch_has_an_order_of_its_own() -> None:
    sampler = EpochSampler(100, 100, seed=0)
    assert not np.array_equal(sampler.indices(0, 0), sampler.indices(1, 0))
    np.testing.assert_array_equal(
        sampler.indices(1, 0), EpochSampler(100, 100, seed=0).indices(1, 0)
    )


def test_a_batch_that_cannot_be_shared_or_filled_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of the 3 processes"):
        EpochSampler(100, 16, world=3)
    with pytest.raises(ConfigError, match="do not fill"):
        EpochSampler(10, 16)


def test_a_batch_has_views_labels_and_indices(images: ImageSet) -> None:
    batch = next(training_loader(images).epoch(0))

    assert len(batch) == 16
    assert len(batch.views) == 2
    assert not torch.equal(*batch.views)
    for view in batch.views:
        assert view.shape == (16, 3, 32, 32)
        assert view.dtype == torch.uint8
        assert view.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.tolist() == [images.label(index) for index in batch.indices.tolist()]


def test_the_number_of_workers_changes_nothing(images: ImageSet) -> None:
    with_workers = training_loader(images, IN_PROCESS.derive(workers=2))
    without = training_loader(images)
    for epoch in (0, 1):
        assert_equal(list(with_workers.epoch(epoch)), list(without.epoch(epoch)))


def test_the_number_of_ranks_changes_nothing(images: ImageSet) -> None:
    alone = next(training_loader(images).epoch(0))
    ranks = [next(training_loader(images, rank=rank, world=2).epoch(0)) for rank in range(2)]
    for number, view in enumerate(alone.views):
        assert torch.equal(torch.cat([batch.views[number] for batch in ranks]), view)


def test_workers_start_although_opencv_has_threads(images: ImageSet) -> None:
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((1000, 1000, 3), np.uint8), (0, 0), 3)
    assert len(list(training_loader(images, IN_PROCESS.derive(workers=1)).epoch(0))) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_start_at_any_step(images: ImageSet, workers: int) -> None:
    loader = training_loader(images, IN_PROCESS.derive(workers=workers))
    whole = list(loader.epoch(2))
    next(loader.epoch(1))  # left in the middle
    assert loader.steps == len(whole) == 3
    assert_equal(list(loader.epoch(2, first_step=1)), whole[1:])


def test_colours_on_the_device_look_like_those_of_the_loader(images: ImageSet) -> None:
    for config in (moco_v1(32), moco_v2(32)):
        finished = []
        for colour in ("device", "loader"):
            augmentation = config.derive(colour=colour)
            batch = next(training_loader(images, augmentation=augmentation).epoch(0))
            assert bool(batch.colours) == (colour == "device")
            finished.append(torch.stack(finish_views(batch, augmentation)))
        grey_level = 1 / 255 / min(IMAGENET_STD)
        assert (finished[0] - finished[1]).abs().mean() < 1.5 * grey_level


def test_evaluation_sees_every_image_once_in_order_and_normalised(images: ImageSet) -> None:
    config = EvaluationConfig(resize=48, crop=48)
    batches = list(make_loader(images, config, IN_PROCESS, batch_size=16).epoch(0))

    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(60))
    (finished,) = finish_views(batches[0], config)
    pixels = batches[0].views[0].float() / 255
    expected = (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(
        IMAGENET_STD
    ).view(3, 1, 1)
    torch.testing.assert_close(finished, expected, rtol=0, atol=1e-5)


def test_a_rank_may_be_left_without_images_in_evaluation(images: ImageSet) -> None:
    config = EvaluationConfig(resize=48, crop=48)
    sizes = [
        [
            len(batch)
            for batch in make_loader(
                images, config, IN_PROCESS, batch_size=59 * 2, rank=rank, world=2
            ).epoch(0)
        ]
        for rank in range(2)
    ]
    assert sizes == [[30], [30]]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_file_is_quarantined_and_the_order_of_the_rest_unchanged(
    images: ImageSet, workers: int
) -> None:
    before = list(training_loader(images).epoch(0))
    broken = int(before[1].indices[4])
    path = Path(images.path(broken))
    path.write_bytes(path.read_bytes()[:300])

    loader = training_loader(images, IN_PROCESS.derive(workers=workers))
    after = list(loader.epoch(0))

    assert [image.file for image in loader.quarantine.listed()] == [str(path)]
    assert "truncated" in loader.quarantine.listed()[0].reason.lower()
    assert after[1].indices[4] != broken
    assert after[1].labels[4] == images.label(int(after[1].indices[4]))
    rest = torch.arange(16) != 4
    assert torch.equal(after[1].indices[rest], before[1].indices[rest])
    assert torch.equal(after[1].views[0][rest], before[1].views[0][rest])
    assert_equal([after[0], after[2]], [before[0], before[2]])
    assert_equal(list(training_loader(images).epoch(0)), after)


def test_evaluation_leaves_unreadable_images_out(images: ImageSet) -> None:
    Path(images.path(5)).write_bytes(b"")
    config = EvaluationConfig(resize=48, crop=48)
    loader = make_loader(images, config, IN_PROCESS, batch_size=16)

    seen = torch.cat([batch.indices for batch in loader.epoch(0)]).tolist()

    assert seen == [index for index in range(60) if index != 5]
    assert [image.index for image in loader.quarantine.listed()] == [5]


def test_too_many_unreadable_images_stop_the_work_and_are_named(images: ImageSet) -> None:
    for index in range(30):
        Path(images.path(index)).write_bytes(b"")
    with pytest.raises(DataError, match=r"6 are tolerated(.|\n)*JPEG: the file is empty"):
        list(training_loader(images).epoch(0))


def test_one_unreadable_image_is_always_tolerated_unless_none_shall_be() -> None:
    image = CorruptImage(0, "a.jpg", "truncated")
    small = Quarantine(10, max_fraction=0.001)
    small.add([image, image])
    assert len(small) == 1
    with pytest.raises(DataError, match=r"a\.jpg"):
        Quarantine(10, max_fraction=0).add([image])
    assert Quarantine(1_281_167, max_fraction=0.001).allowed == 1281


def test_cached_images_are_not_read_again(images: ImageSet) -> None:
    loader = training_loader(images, IN_PROCESS.derive(cache=10))
    config = training_loader(images)
    first = list(loader.epoch(0))
    assert_equal(first, list(config.epoch(0)))
    for batch in first:
        for index in batch.indices.tolist():
            Path(images.path(index)).unlink(missing_ok=True)
    assert_equal(list(loader.epoch(0)), first)
