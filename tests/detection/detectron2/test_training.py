"""Every kind of model learns from a batch, and from images without instances."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.detection.libraries.building import build_detector
from tests.detection.detectron2.making import KINDS, converted, head_of, scenes

pytest.importorskip("detectron2", reason="needs detectron2: make detectron2")

BOXES = [[[8, 8, 40, 36]], [[4, 20, 30, 60], [32, 4, 54, 30]]]
LOSSES = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
SURFACE = {f"loss_densepose_{part}" for part in "UVIS"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "artifact"
    converted(folder)
    return folder


def detector(kind: str, artifact: Path) -> Any:
    if KINDS[kind].surface != "none":
        pytest.importorskip("densepose", reason="needs DensePose: make detectron2")
    torch.manual_seed(0)
    return build_detector("detectron2", KINDS[kind], artifact, head_of(kind)).train()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_all_that_is_learned_and_nothing_else(kind: str, artifact: Path) -> None:
    model = detector(kind, artifact)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    total, losses = model(scenes(BOXES))
    total.backward()
    torch.optim.SGD(model.parameters(), lr=1).step()  # seen beside a 1 in single precision

    config = KINDS[kind]
    parts = {"loss_mask"} if config.masks else set()
    parts |= {"loss_keypoint"} if config.keypoints else set()
    parts |= SURFACE if config.surface != "none" else set()
    assert losses.keys() == LOSSES | parts
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
    torch.testing.assert_close(total, torch.stack(list(losses.values())).sum())
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    after = model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still & learned == set()
    if config.backbone_norm == "frozen":
        frozen = {name for name in before if ".norm." in name}
        assert frozen and frozen <= still
    else:
        norms = [m for m in model.modules() if type(m) is nn.BatchNorm2d]
        assert norms, "what the training loop synchronises is torch's own batch norm"
        assert all(norm.num_batches_tracked == 1 for norm in norms)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boxes", [[[]], [[], BOXES[0]]], ids=["alone", "beside"])
def test_an_image_without_instances_is_background(
    kind: str, boxes: list[list[list[int]]], artifact: Path
) -> None:
    model = detector(kind, artifact)

    total, losses = model(scenes(boxes))
    total.backward()

    assert torch.isfinite(total)
    assert losses["loss_rpn_cls"] > 0 and losses["loss_cls"] > 0
    # A process whose images are all empty takes part in the sum over all of them.
    assert [name for name, one in model.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("kind", ["fpn", "c4_after", "keypoints", "legacy"])
def test_mixed_precision(kind: str, artifact: Path) -> None:
    model = detector(kind, artifact)
    full, _ = model(scenes(BOXES))

    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        half, _ = detector(kind, artifact)(scenes(BOXES))
        found = model.eval().predict(scenes(BOXES))

    half.backward()
    assert half.item() == pytest.approx(full.item(), rel=0.2)
    assert [prediction.boxes.dtype for prediction in found] == [torch.float32] * len(BOXES)


def test_persons_without_annotated_surfaces_are_persons_all_the_same(artifact: Path) -> None:
    model = detector("legacy", artifact)
    batch = scenes(BOXES)
    of_first = batch["point_owners"] == 0
    some = {**batch, "surfaces": torch.tensor([True, False, False])}
    some |= {"points": batch["points"][of_first], "point_owners": batch["point_owners"][of_first]}
    none = {**some, "surfaces": torch.tensor([False] * 3)}
    none |= {"points": torch.zeros(0, 5), "point_owners": torch.zeros(0, dtype=torch.int64)}

    for one, annotated in ((some, True), (none, False)):
        _, losses = model(one)

        assert all((losses[name] > 0) == annotated for name in SURFACE)
        assert losses["loss_box_reg"] > 0


def test_the_classes_of_each_image_are_its_own(artifact: Path) -> None:
    """The loss of a batch is that of its images, whichever comes first."""
    model = detector("fpn_frozen", artifact)
    model.model.proposal_generator.batch_size_per_image = 10**6  # no drawing of anchors
    model.model.roi_heads.batch_size_per_image = 10**6

    def losses(boxes: list[list[list[int]]], labels: list[int]) -> dict[str, Tensor]:
        batch = {**scenes(boxes), "labels": torch.tensor(labels)}
        batch["images"] = scenes(BOXES)["images"][[BOXES.index(one) for one in boxes]]
        with torch.no_grad():
            return dict(model(batch)[1])

    forth, back = losses(BOXES, [0, 1, 0]), losses(BOXES[::-1], [1, 0, 0])

    for name, loss in forth.items():
        torch.testing.assert_close(back[name], loss)


def test_a_model_that_diverged_gives_a_loss_that_says_so(artifact: Path) -> None:
    model = detector("fpn", artifact)
    with torch.no_grad():
        model.model.proposal_generator.rpn_head.conv.weight.fill_(torch.inf)

    total, _ = model(scenes(BOXES))
    total.backward()

    assert torch.isnan(total)
    assert all(one.grad is not None for one in model.parameters())
