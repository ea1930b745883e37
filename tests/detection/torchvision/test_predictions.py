"""Predictions are in pixels of the original image, which is not as tall or wide as the resized."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from components.detection.interface import Detector
from components.detection.libraries.torchvision.detector import paste_masks, to_prediction
from components.detection.model import ModelConfig
from components.training.learner import Batch
from components.vision.prediction import Prediction
from tests.detection.torchvision.making import KINDS, SMALL, detector, scenes

STRETCH = (1.5, 2.0)  # down and across
LEARNED = {  # steps, rectangles of each image
    "fpn": (SMALL.derive(keypoints=True, surface="legacy", sampling=2), 120, (2, 1)),
    "c4": (KINDS["c4"], 90, (1, 1)),
    "dc5": (KINDS["dc5"], 90, (1, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEARNED)
def test_memorised_scenes_are_found_in_original_pixels(kind: str, tmp_path: Path) -> None:
    config, steps, counts = LEARNED[kind]
    batch = scenes(counts, stretch=STRETCH)
    model = memorise(config.derive(rois=16, positive=0.5), batch, steps, tmp_path)

    predictions = model.predict(batch)

    assert len(predictions) == len(batch["counts"])
    instance = 0
    for image, found in enumerate(predictions):
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        for _ in range(int(batch["counts"][image])):
            check_found(found, batch, image, instance)
            instance += 1


def memorise(config: ModelConfig, batch: Batch, steps: int, folder: Path) -> Detector:
    model = detector(folder / "backbone", config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(steps):
        total, _ = model(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return model.eval()


def check_found(found: Prediction, batch: Batch, image: int, instance: int) -> None:
    """Whether an instance is found by a detection of its class, with all that belongs to it."""
    height, width = batch["originals"][image].tolist()
    scale = torch.tensor([STRETCH[1], STRETCH[0]])
    box = batch["boxes"][instance] * scale.repeat(2)
    overlaps = box_iou(box[None], found.boxes)[0]
    overlaps[found.labels != batch["labels"][instance]] = 0
    best = int(overlaps.argmax())
    assert overlaps[best] > 0.5
    assert found.scores[best] > 0.3
    if found.masks is not None:
        assert found.masks.shape == (len(found), height, width)
        rows, columns = batch["sizes"][image].tolist()
        mask = batch["masks"][instance, :rows, :columns]
        truth = F.interpolate(mask[None, None].float(), (height, width))[0, 0] > 0.5
        assert (found.masks[best] & truth).sum() / (found.masks[best] | truth).sum() > 0.5
    if found.keypoints is not None:
        seen = batch["keypoints"][instance, :, 2] > 0
        places = batch["keypoints"][instance, seen, :2] * scale
        apart = (found.keypoints[best, seen, :2] - places).norm(dim=1)
        assert apart.max() < 6, apart
    if found.surfaces is not None:
        check_surface(found.surfaces[best], found.boxes[best])


def check_surface(surface: Tensor, box: Tensor) -> None:
    wide, high = (box[2:] - box[:2]).long().tolist()
    assert surface.shape == (3, high, wide) and surface.dtype == torch.uint8
    y, x = torch.meshgrid(
        (torch.arange(high) + 0.5) / high, (torch.arange(wide) + 0.5) / wide, indexing="ij"
    )
    right = surface[0] == 1 + (x >= 0.5) + 2 * (y >= 0.5)
    assert right.float().mean() > 0.6
    for values, truth in zip(surface[1:], (x, y), strict=True):
        assert (values / 255 - truth)[right].abs().mean() < 0.15


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "_" not in kind])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_an_untrained_detector_predicts_something_sound(
    kind: str, precision: torch.dtype, tmp_path: Path
) -> None:
    config = KINDS[kind].derive(score_threshold=0.0, detections=7)
    batch = scenes((1, 1), stretch=STRETCH)
    model = detector(tmp_path / "backbone", config)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        total, _ = model.train()(batch)
        predictions = model.eval().predict({k: batch[k] for k in ("images", "sizes", "originals")})
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    for found, (height, width) in zip(predictions, batch["originals"].tolist(), strict=True):
        assert 0 < len(found) <= 7
        for floats in (found.boxes, found.scores):
            assert floats.dtype == torch.float32 and torch.isfinite(floats).all()
        assert found.boxes.min() >= 0
        assert found.boxes[:, 2].max() <= width and found.boxes[:, 3].max() <= height
        assert set(found.labels.tolist()) <= {0, 1, 2}
        assert (found.masks is not None) == config.masks
        assert (found.keypoints is not None) == config.keypoints
        assert (found.surfaces is not None) == (config.surface != "none")


@pytest.mark.parametrize("kind", ["fpn", "keypoints", "legacy", "c4"])
def test_nothing_found_is_an_empty_prediction(kind: str, tmp_path: Path) -> None:
    model = detector(tmp_path / "backbone", KINDS[kind].derive(score_threshold=1.0)).eval()
    batch = scenes((1, 0), stretch=STRETCH)
    for found, (height, width) in zip(
        model.predict(batch), batch["originals"].tolist(), strict=True
    ):
        assert len(found) == 0 and found.boxes.shape == (0, 4)
        if found.masks is not None:
            assert found.masks.shape == (0, height, width)
        if found.keypoints is not None:
            assert found.keypoints.shape == (0, 4, 3)
        assert found.surfaces in (None, ())


def test_weights_may_lie_with_channels_last(tmp_path: Path) -> None:
    config = KINDS["legacy"].derive(keypoints=True, masks=True)
    model = detector(tmp_path / "backbone", config).train()
    batch = scenes((1, 1))
    state = torch.get_rng_state()
    expected, _ = model(batch)
    torch.set_rng_state(state)
    found, _ = model.to(memory_format=torch.channels_last)(batch)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_full_mask_paints_the_pixels_with_centres_in_its_box() -> None:
    boxes = torch.tensor([[2.4, 1.0, 7.6, 3.5], [0, 0, 10, 6], [9.2, 5.1, 9.4, 5.9]])
    painted = paste_masks(torch.ones(3, 28, 28), boxes, 6, 10)
    y, x = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(10) + 0.5, indexing="ij")
    for one, (left, top, right, bottom) in zip(painted, boxes.tolist(), strict=True):
        assert torch.equal(one, (x >= left) & (x <= right) & (y >= top) & (y <= bottom))


def test_a_mask_is_stretched_to_its_box() -> None:
    mask = torch.zeros(1, 28, 28)
    mask[0, 14:, 7:] = 1  # all but the upper half and the left quarter
    (painted,) = paste_masks(mask, torch.tensor([[10.0, 20.0, 66.0, 48.0]]), 60, 70)
    truth = torch.zeros(60, 70, dtype=torch.bool)
    truth[34:48, 24:66] = True
    assert torch.equal(painted, truth)


def test_boxes_that_scaling_empties_are_dropped() -> None:
    found = {
        "boxes": torch.tensor([[1.0, 2, 3, 8], [4, 4, 4, 9], [0, 0, 10, 20.001]]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "labels": torch.tensor([3, 2, 1]),
    }
    prediction = to_prediction(found, (20, 10), (40, 30))
    assert torch.equal(prediction.boxes, torch.tensor([[3.0, 4, 9, 16], [0, 0, 30, 40]]))
    assert prediction.labels.tolist() == [2, 0]
    assert prediction.masks is None
    assert prediction.keypoints is None
    assert prediction.surfaces is None
