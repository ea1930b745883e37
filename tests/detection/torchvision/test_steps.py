"""Every kind of detector learns from a batch, whatever is or is not in it."""

from pathlib import Path

import pytest
import torch

from tests.detection.torchvision.making import KINDS, detector, scenes

LOSSES = ("loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box")
OF_BRANCHES = {
    "keypoints": ("loss_keypoint",),
    "legacy": tuple(f"loss_surface_{part}" for part in ("coarse", "part", "u", "v")),
    "deeplab": tuple(f"loss_surface_{part}" for part in ("coarse", "part", "u", "v")),
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
