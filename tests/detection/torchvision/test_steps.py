"""Every kind of detector learns from a batch, whatever is or is not in it."""

import math
from pathlib import Path

import pytest
import torch

from components.core.errors import ConfigError
from components.detection.interface import Head
from components.detection.libraries.torchvision import build
from components.detection.libraries.torchvision.features import build_features
from components.detection.libraries.torchvision.proposals import build_proposals
from components.detection.libraries.torchvision.regions import build_regions
from tests.convert.making import trained_encoder
from tests.detection.torchvision.making import HEAD, KINDS, SMALL, detector, scenes

LOSSES = ("loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box")
OF_BRANCHES = {
    "keypoints": ("loss_keypoint",),
    "legacy": tuple(f"loss_surface_{part}" for part in ("coarse", "part", "u", "v")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_every_parameter(kind: str, tmp_path: Path) -> None:
    model = detector(tmp_path / "backbone", KINDS[kind]).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    total, losses = model(scenes((2, 0, 1)))
    total.backward()
    optimizer.step()

    masks = ("loss_mask",) if KINDS[kind].masks else ()
    assert set(losses) == {*LOSSES, *masks, *OF_BRANCHES.get(kind, ())}
    assert all(loss > 0 for loss in losses.values()), losses
    assert torch.isfinite(total)
    torch.testing.assert_close(total, sum(losses.values()))
    unmoved = [name for name, one in model.named_parameters() if torch.equal(one, before[name])]
    assert not unmoved


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_instances_are_background(kind: str, tmp_path: Path) -> None:
    model = detector(tmp_path / "backbone", KINDS[kind]).train()
    total, losses = model(scenes((0, 0)))
    total.backward()
    assert torch.isfinite(total)
    assert losses["loss_class"] > 0 and losses["loss_rpn_objectness"] > 0
    assert not any(losses[name] for name in losses if name not in (LOSSES[0], LOSSES[2]))
    # In many processes each must have a gradient for every parameter.
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_proposal_losses_are_divided_by_the_sample_that_is_wanted() -> None:
    features, _ = build_features(SMALL, trained_encoder())
    proposals = build_proposals(SMALL, features)
    labels = [torch.tensor([1.0, 0, 0, -1]), torch.tensor([0.0, -1, -1, 1])]
    deltas = [torch.full((4, 4), 0.5), torch.full((4, 4), -2.0)]
    found, placed = proposals.compute_loss(torch.zeros(8, 1), torch.zeros(8, 4), labels, deltas)
    assert float(found) == pytest.approx(5 * math.log(2) / (2 * SMALL.rpn.batch))
    assert float(placed) == pytest.approx(4 * (0.5 + 2) / (2 * SMALL.rpn.batch))


@pytest.mark.parametrize(("keypoints", "expected"), [(False, 0.1 + 2), (True, 0.01 + 1.75)])
def test_box_losses_are_l1_but_with_keypoints(keypoints: bool, expected: float) -> None:
    model = SMALL.derive(keypoints=keypoints)
    features, _ = build_features(model, trained_encoder())
    regions = build_regions(model, HEAD, features, None)
    deltas, labels = torch.zeros(4, 4, 4), torch.tensor([2, 0, 3, 0])
    deltas[0, 2, 0], deltas[2, 3, 3] = 0.1, 2.0
    deltas[1] = 9  # background has no box
    losses = regions._box_losses(torch.zeros(4, 4), deltas.flatten(1), labels, torch.zeros(4, 4))
    assert float(losses["loss_box"]) == pytest.approx(expected / 4)
    assert float(losses["loss_class"]) == pytest.approx(math.log(4))


def test_a_keypoint_head_needs_keypoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.keypoints is true, and the data has no"):
        build(SMALL.derive(keypoints=True), tmp_path, Head(classes=1))
