"""What regions are cut from and compared with, against torchvision's and by construction."""

import math

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from components.detection.libraries.torchvision.branches import Positives, RegionPool, cut_masks
from components.detection.libraries.torchvision.surface import (
    COARSE,
    COARSE_WEIGHT,
    PARTS,
    PLACE_WEIGHT,
    cut_parts,
    read_surface,
    surface_losses,
)
from tests.detection.torchvision.making import scenes

SIDE = 56


def test_regions_are_cut_as_torchvision_cuts_them() -> None:
    maps = {str(i): torch.randn(2, 5, 256 >> i, 256 >> i) for i in range(4)}
    sides = [8.0, 60, 111, 113, 223, 225, 440, 900]
    boxes = [torch.tensor([[3.0, 5, 3 + side, 5 + side] for side in sides])] * 2
    boxes[1] = boxes[1][::2]
    theirs = MultiScaleRoIAlign(list(maps), 7, 2)(maps, boxes, [(1024, 1024)] * 2)
    ours = RegionPool((4, 8, 16, 32), 7, 2, aligned=False)(maps, boxes)
    torch.testing.assert_close(ours, theirs)


def test_an_aligned_cut_reads_pixels_at_their_centres() -> None:
    # A map that says where it is: each place's centre, in pixels.
    ramp = ((torch.arange(16) + 0.5) * 4).expand(1, 1, 16, 16)
    (cut,) = RegionPool((4,), 2, 0, aligned=True)({"a": ramp}, [torch.tensor([[8.0, 8, 40, 24]])])
    torch.testing.assert_close(cut, torch.tensor([[[16.0, 32], [16, 32]]]))


def test_masks_are_cut_to_regions() -> None:
    masks = torch.zeros(3, 40, 40, dtype=torch.bool)
    masks[1, 10:20, 8:32] = True
    masks[2, :, :20] = True
    positives = Positives(
        boxes=[
            torch.tensor([[8.0, 10, 32, 20], [8, 0, 32, 20]]),
            torch.tensor([[10.0, 0, 30, 40]]),
        ],
        instances=torch.tensor([1, 1, 2]),
        shared=torch.empty(3),
    )
    cut = cut_masks(masks, positives, 28)
    assert torch.equal(cut[0], torch.ones(28, 28))
    assert torch.equal(cut[1], (torch.arange(28) >= 14).float()[:, None].expand(28, 28))
    assert torch.equal(cut[2], (torch.arange(28) < 14).float().expand(28, 28))


def test_the_truth_has_no_surface_loss() -> None:
    """Heat maps that say what is annotated lose nothing; what they say wrong, they lose."""
    batch = scenes((2, 1))
    boxes, instances = batch["boxes"], torch.arange(3)
    # A region of the left half of the third instance: its points are elsewhere in it.
    half = boxes[2:] * torch.tensor([1.0, 1, 0, 1])
    half[:, 2] = (boxes[2, 0] + boxes[2, 2]) / 2
    boxes, instances = torch.cat((boxes, half)), torch.cat((instances, torch.tensor([2])))
    said = torch.stack([true_heat(width) for width in (1, 1, 1, 0.5)])
    losses = surface_losses(said, boxes, instances, batch)
    assert all(value < 1e-4 for value in losses.values()), losses

    for channel, name in ((-2 * PARTS, "u"), (-PARTS, "v")):
        wrong = said.clone()
        wrong[:, channel : channel + PARTS or None] += 2
        changed = surface_losses(wrong, boxes, instances, batch)
        # Smooth L1 of 2 is 1.5, summed over 49 points three times and 21 on the left.
        expected = 1.5 * (3 * 49 + 21) * PLACE_WEIGHT
        assert float(changed[f"loss_surface_{name}"]) == pytest.approx(expected, rel=1e-3)
    wrong = said.clone()
    wrong[:, : -3 * PARTS] = 0
    changed = surface_losses(wrong, boxes, instances, batch)
    chance = COARSE_WEIGHT * math.log(COARSE)
    assert float(changed["loss_surface_coarse"]) == pytest.approx(chance, rel=1e-4)

    unannotated = {**batch, "point_owners": batch["point_owners"] + 100}
    nothing = surface_losses(said[:0], boxes[:0], instances[:0], unannotated)
    assert set(nothing) == set(losses) and not any(nothing.values())


def true_heat(width: float) -> torch.Tensor:
    """What `scenes` annotates, for a region of the box's height and a share of its width."""
    said = torch.zeros(COARSE + 3 * PARTS, SIDE, SIDE)
    # A value is at the upper left corner of its place.
    y, x = torch.meshgrid(*[torch.arange(SIDE) / SIDE] * 2, indexing="ij")
    part = 1 + (x * width >= 0.5).long() + 2 * (y >= 0.5)
    said[:COARSE].scatter_(0, part.clamp(max=COARSE - 1)[None], 50)
    said[COARSE : COARSE + PARTS].scatter_(0, part[None], 50)
    said[COARSE + PARTS : COARSE + 2 * PARTS] = x * width
    said[COARSE + 2 * PARTS :] = y
    return said


def test_parts_outside_the_instance_are_background() -> None:
    parts = torch.full((1, 256, 256), 7, dtype=torch.uint8)
    owner, region = torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([[0.0, 10, 40, 30]])
    (cut,) = cut_parts(parts, owner, region, 8)
    assert cut[4].tolist() == [0, 0, 7, 7, 7, 7, 7, 0]  # the edge at 30 is the instance's last


def test_a_surface_is_read_in_the_boxs_pixels() -> None:
    said = torch.full((15 + 3 * PARTS, SIDE, SIDE), -9.0)
    said[3, :, SIDE // 2 :] = 9  # coarse: part 3 on the right
    said[0, :, : SIDE // 2] = 9  # background on the left
    said[15 + 20] = 9  # part 20
    said[15 + PARTS + 20] = 0.25
    said[15 + 2 * PARTS + 20] = 1.7  # over the chart's edge
    surface = read_surface(said, 6, 10)
    assert surface.dtype == torch.uint8 and surface.shape == (3, 6, 10)
    assert surface[0].unique().tolist() == [0, 20]
    assert torch.equal(surface[0] > 0, torch.tensor([False] * 5 + [True] * 5).expand(6, 10))
    assert surface[1, 0].tolist() == [0] * 5 + [63] * 5
    assert surface[2, 0].tolist() == [0] * 5 + [255] * 5
