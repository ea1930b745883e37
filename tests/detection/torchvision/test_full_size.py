"""The paper's models at their real widths, on small images and with few regions."""

from pathlib import Path

import pytest
import torch

from components.detection.interface import Head
from components.detection.libraries.torchvision import build
from components.detection.model import ModelConfig, RpnConfig
from tests.detection.torchvision.making import converted, scenes

FEW = ModelConfig(rois=32, rpn=RpnConfig(proposals=(300, 40)), detections=5)
C4 = FEW.derive(kind="c4", pooling=14, head_norm="before_pooling", rois=12)
PAPER = {
    # Sec. 4.2 and Appendix A.1 to A.8
    "lvis": (FEW.derive(score_threshold=1e-4, detections=20), Head(1230)),
    "coco_c4": (C4, Head(80)),
    "voc_dc5": (FEW.derive(kind="dc5", neck_channels=512, masks=False), Head(20)),
    "keypoints": (FEW.derive(keypoints=True, masks=False), Head(1, 17)),
    "densepose": (FEW.derive(surface="legacy", masks=False, sampling=2), Head(1)),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("resnet50") / "backbone", "resnet50")


@pytest.mark.slow
@pytest.mark.parametrize("table", PAPER)
def test_a_model_of_the_paper_learns_and_predicts(table: str, backbone: Path) -> None:
    config, head = PAPER[table]
    torch.manual_seed(0)
    model = build(config, backbone, head).train()
    scene = scenes((1,), side=128, stretch=(1.5, 2))
    batch = {
        **scene,
        "labels": torch.tensor([head.classes - 1]),
        "keypoints": scene["keypoints"].repeat(1, 5, 1)[:, : head.keypoints],
    }

    total, losses = model(batch)
    total.backward()

    assert torch.isfinite(total) and all(loss > 0 for loss in losses.values()), losses
    assert all(
        one.grad is not None and torch.isfinite(one.grad).all() for one in model.parameters()
    )
    (found,) = model.eval().predict(batch)
    assert len(found) <= config.detections
