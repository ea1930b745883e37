"""A model that has learned two scenes by heart finds them again, in the pixels of their files."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from components.detection.interface import Head
from components.detection.libraries.building import build_detector
from components.training.learner import Batch
from components.vision.prediction import Prediction
from tests.detection.detectron2.making import KEYPOINTS, SMALL, converted, scenes

pytest.importorskip("densepose", reason="needs detectron2 and DensePose: make detectron2")

ZOOM = 3  # the files have so many pixels for one that the model sees
BOXES = [[[8, 8, 40, 36]], [[4, 20, 30, 60], [32, 4, 54, 30]]]
TRUE = scenes(BOXES, zoom=ZOOM)
STEPS = 150


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Prediction]:
    folder = tmp_path_factory.mktemp("backbone") / "artifact"
    converted(folder)
    torch.manual_seed(0)
    config = SMALL.derive(keypoints=True, surface="legacy", backbone_norm="frozen", rois=16)
    model = build_detector("detectron2", config, folder, Head(2, KEYPOINTS))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.003)
    # Down to nothing: where a training of full steps happens to stop, boxes may be anywhere.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(TRUE)[0].backward()
        optimizer.step()
        schedule.step()
    return model.eval().predict(TRUE)


def best(found: Sequence[Prediction]) -> list[tuple[int, Prediction, int]]:
    """For each true instance: which it is, its image's prediction, and the nearest in there."""
    triples = []
    start = 0
    for boxes, prediction in zip(BOXES, found, strict=True):
        overlaps = box_iou(torch.tensor(boxes).float() * ZOOM, prediction.boxes)
        triples += [(start + i, prediction, int(row.argmax())) for i, row in enumerate(overlaps)]
        start += len(boxes)
    return triples


@pytest.mark.slow
def test_boxes(found: Sequence[Prediction]) -> None:
    for index, prediction, nearest in best(found):
        true = TRUE["boxes"][index : index + 1] * ZOOM
        assert box_iou(true, prediction.boxes[nearest : nearest + 1]) > 0.7
        assert prediction.labels[nearest] == TRUE["labels"][index]
        assert prediction.scores[nearest] > 0.5
        assert torch.equal(prediction.scores, prediction.scores.sort(descending=True).values)


@pytest.mark.slow
def test_masks(found: Sequence[Prediction]) -> None:
    for index, prediction, nearest in best(found):
        assert prediction.masks is not None
        mask = prediction.masks[nearest]
        small = TRUE["masks"][index, :64, :56]
        true = small.repeat_interleave(ZOOM, 0).repeat_interleave(ZOOM, 1)
        assert mask.shape == true.shape and mask.dtype == torch.bool
        assert (mask & true).sum() / (mask | true).sum() > 0.6


@pytest.mark.slow
def test_keypoints(found: Sequence[Prediction]) -> None:
    for index, prediction, nearest in best(found):
        assert prediction.keypoints is not None
        true = TRUE["keypoints"][index, :, :2] * ZOOM
        distance = (prediction.keypoints[nearest, :, :2] - true).norm(dim=1)
        assert distance.max() < 5 * ZOOM
        assert (prediction.keypoints[nearest, :, 2] > 0).all()


@pytest.mark.slow
def test_surfaces(found: Sequence[Prediction]) -> None:
    for _, prediction, nearest in best(found):
        assert prediction.surfaces is not None and len(prediction.surfaces) == len(prediction)
        left, top, right, bottom = prediction.boxes[nearest].tolist()
        parts, u, v = prediction.surfaces[nearest]
        height, width = parts.shape
        assert (height, width) == (int(bottom - top), int(right - left))
        true_parts = torch.ones_like(parts)
        true_parts[:, width // 2 :] = 2
        assert (parts == true_parts).float().mean() > 0.8
        across = torch.linspace(0, 255, width).expand(height, width)
        down = torch.linspace(0, 255, height)[:, None].expand(height, width)
        known = parts > 0
        assert (u.float() - across)[known].abs().mean() < 40
        assert (v.float() - down)[known].abs().mean() < 40


@pytest.mark.parametrize("classes", [2])
def test_an_image_in_which_nothing_is_found(tmp_path: Path, classes: int) -> None:
    converted(tmp_path / "backbone")
    config = SMALL.derive(keypoints=True, surface="legacy", score_threshold=1)
    model = build_detector("detectron2", config, tmp_path / "backbone", Head(classes, KEYPOINTS))
    batch: Batch = scenes([[], []], zoom=ZOOM)

    for prediction in model.eval().predict(batch):
        assert len(prediction) == 0
        assert prediction.boxes.shape == (0, 4)
        assert prediction.masks is not None and prediction.masks.shape == (0, 192, 168)
        assert prediction.keypoints is not None and prediction.keypoints.shape == (0, KEYPOINTS, 3)
        assert prediction.surfaces == ()
