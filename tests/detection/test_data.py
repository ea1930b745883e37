"""Batches are the same whoever loads them, and hold what the interface promises."""

import shutil
from pathlib import Path

import pytest
import torch

from components.core.errors import DataError
from components.detection import cityscapes, coco, densepose, keypoints, lvis, voc
from components.detection.config import DetectionConfig
from components.detection.data import DetectionBatch, test_loader, training_loader
from components.training import distributed
from tests.datasets.readers import read_part

CONFIGS: list[tuple[DetectionConfig, str]] = [
    (coco.mask_rcnn_fpn(), "coco"),
    (voc.faster_rcnn_c4(), "voc"),
    (keypoints.keypoint_rcnn(), "coco"),
    (densepose.densepose_rcnn(), "coco"),
    (lvis.mask_rcnn(), "lvis"),
    (cityscapes.mask_rcnn(), "cityscapes"),
]
IDS = [config.dataset for config, _ in CONFIGS]


def batches(
    config: DetectionConfig, root: Path, epoch: int = 0, first: int = 0, count: int = 3
) -> list[DetectionBatch]:
    loader = training_loader(read_part(config.dataset, root, "train"), config, root)
    return [batch for batch, _ in zip(loader.epoch(epoch, first), range(count), strict=False)]


def same(one: DetectionBatch, other: DetectionBatch) -> bool:
    return one.columns.keys() == other.columns.keys() and all(
        torch.equal(one.columns[name], other.columns[name]) for name in one.columns
    )


@pytest.mark.parametrize(("config", "name"), CONFIGS, ids=IDS)
def test_a_batch_holds_what_the_interface_promises(
    config: DetectionConfig, name: str, world: Path
) -> None:
    small = config.miniature()
    (batch,) = batches(small, world / name, count=1)
    columns = batch.columns
    images, total = columns["images"], int(columns["counts"].sum())
    assert images.dtype == torch.uint8
    assert images.shape[:2] == (small.batch_size, 3)
    for image, (height, width) in zip(images, columns["sizes"].tolist(), strict=True):
        assert min(height, width) in small.shorter_sides or max(height, width) == small.longer_side
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
        assert image[:, :height, :width].any()
    assert columns["boxes"].dtype == torch.float32
    assert len(columns["boxes"]) == len(columns["labels"]) == total > 0
    left, top, right, bottom = columns["boxes"].unbind(1)
    limits = columns["sizes"].repeat_interleave(columns["counts"], 0)
    assert ((left < right) & (top < bottom) & (right <= limits[:, 1])).all()
    assert (bottom <= limits[:, 0]).all()
    assert ("masks" in columns) == small.model.masks
    if small.model.masks:
        assert columns["masks"].shape == (total, *images.shape[2:])
        assert columns["masks"].flatten(1).any(1).all()
    if small.model.keypoints:
        assert columns["keypoints"].shape == (total, 17, 3)
        assert set(columns["keypoints"][..., 2].unique().tolist()) <= {0, 1, 2}
    if small.model.surface != "none":
        assert columns["parts"].shape == (total, 256, 256)
        owners = columns["point_owners"].unique()
        assert columns["surfaces"].nonzero().flatten().tolist() == owners.tolist()
        part, u, v = columns["points"][:, 2:].unbind(1)
        assert ((part >= 1) & (part <= 24) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)).all()


def test_batches_are_the_same_for_any_number_of_workers_and_ranks(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lvis.mask_rcnn().miniature().derive(flip=0.5, repeat_threshold=0.2)
    root = world / "lvis"
    alone = batches(config, root, epoch=2)
    forked = batches(config.derive(loader={"workers": 2}), root, epoch=2)
    assert all(same(one, other) for one, other in zip(alone, forked, strict=True))
    assert not same(alone[0], batches(config.derive(seed=1), root, epoch=2, count=1)[0])

    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "world", lambda: 2)
        shares.append(batches(config, root, epoch=2))
    for whole, first, second in zip(alone, *shares, strict=True):
        for name in ("sizes", "originals", "counts", "boxes", "labels"):
            joined = torch.cat([first.columns[name], second.columns[name]])
            assert torch.equal(joined, whole.columns[name])


def test_training_goes_on_at_any_step_without_replay(world: Path) -> None:
    config = coco.mask_rcnn_fpn().miniature().derive(flip=0.5)
    whole = batches(config, world / "coco", epoch=1, count=5)
    rest = batches(config, world / "coco", epoch=1, first=3, count=2)
    assert all(same(one, other) for one, other in zip(whole[3:], rest, strict=True))


def test_an_image_is_shown_otherwise_in_another_epoch(world: Path) -> None:
    config = coco.mask_rcnn_fpn().miniature().derive(batch_size=16, shorter_sides=(56, 64, 72))
    views = [
        {
            int(index): tuple(size)
            for batch in batches(config, world / "coco", epoch=epoch, count=9)
            for index, size in zip(batch.indices, batch.columns["sizes"].tolist(), strict=True)
        }
        for epoch in range(2)
    ]
    both = views[0].keys() & views[1].keys()
    assert len(both) > 20
    assert any(views[0][index] != views[1][index] for index in both)


def test_evaluation_shows_every_image_once_over_all_ranks(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = voc.faster_rcnn_c4().miniature().derive(test_batch=3)
    images = read_part("voc", world / "voc", "val")
    monkeypatch.setattr(distributed, "world", lambda: 4)
    seen: list[int] = []
    for rank in range(4):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        for batch in test_loader(images, config).epoch(0):
            assert batch.columns.keys() == {"images", "sizes", "originals"}
            assert len(batch.columns["images"]) == len(batch)
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(images)))


def test_images_that_cannot_be_read_are_replaced_in_training_and_left_out_in_evaluation(
    world: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(world / "coco", tmp_path / "coco"))
    images = read_part("coco", root, "train")
    spoiled = [Path(images.path(4)), Path(images.path(7))]
    spoiled[0].write_bytes(b"\xff\xd8 no image")
    shutil.copy(next(root.glob("val2017/*")), spoiled[1])
    images.sizes[7] += 1  # whatever it shows, its annotations are of another size
    config = coco.mask_rcnn_fpn().miniature()
    config = config.derive(loader={"workers": 0, "max_corrupt_fraction": 0.1})
    loader = training_loader(images, config, root)
    for batch in loader.epoch(0):
        assert len(batch) == config.batch_size
        assert not {4, 7} & set(batch.indices.tolist())
    assert {one.file for one in loader.quarantine.listed()} <= {str(one) for one in spoiled}
    assert len(loader.quarantine) > 0
    tests = test_loader(images, config)
    seen = [index for batch in tests.epoch(0) for index in batch.indices.tolist()]
    assert sorted(seen) == [i for i in range(len(images)) if i not in (4, 7)]
    reasons = [one.reason for one in tests.quarantine.listed()]
    assert len(reasons) == 2
    assert "its annotations" in reasons[1]

    strict = config.derive(loader={"workers": 0, "max_corrupt_fraction": 0})
    with pytest.raises(DataError, match="cannot be read, 0 are tolerated"):
        list(test_loader(images, strict).epoch(0))
