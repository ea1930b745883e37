"""Where detectron2 is installed: what was closed between the libraries is equal."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from components.detection.libraries.torchvision.branches import Positives, RegionPool, cut_masks
from components.detection.libraries.torchvision.detector import paste_masks
from components.detection.libraries.torchvision.proposals import Anchors
from components.detection.libraries.torchvision.surface import (
    COARSE,
    PARTS,
    read_surface,
    surface_losses,
)
from components.training.learner import Batch
from tests.detection.torchvision.making import scenes

pytest.importorskip("detectron2", reason="detectron2 is in its own image only")


def boxes(count: int, side: float) -> Tensor:
    corners = (torch.rand(count, 2, 2) * side).sort(1).values
    corners[:, 1] += 2
    return corners.flatten(1)


@pytest.mark.parametrize(("aligned", "kind"), [(True, "ROIAlignV2"), (False, "ROIAlign")])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (2, 4, 8, 16), (16,)])
def test_regions(strides: tuple[int, ...], aligned: bool, kind: str) -> None:
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    maps = {str(stride): torch.randn(2, 3, 512 // stride, 512 // stride) for stride in strides}
    cut = [boxes(20, 500), boxes(9, 60)]
    ours = RegionPool(strides, 7, 2, aligned=aligned)(maps, cut)
    pooler = ROIPooler(7, [1 / stride for stride in strides], 2, kind)
    torch.testing.assert_close(ours, pooler(list(maps.values()), [Boxes(one) for one in cut]))


def test_anchors() -> None:
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    maps = [torch.zeros(1, 1, 9, 7), torch.zeros(1, 1, 5, 4)]
    ratios = (0.5, 1.0, 2.0)
    (ours,) = Anchors(((32.0,), (64.0,)), ratios, (4, 8))(
        SimpleNamespace(image_sizes=[(36, 28)]), maps
    )
    theirs = DefaultAnchorGenerator(
        sizes=[[32], [64]], aspect_ratios=[ratios], strides=[4, 8], offset=0.0
    )(maps)
    torch.testing.assert_close(ours, torch.cat([one.tensor for one in theirs]))


def test_masks() -> None:
    from detectron2.layers.mask_ops import paste_masks_in_image
    from detectron2.structures import BitMasks, Boxes

    masks, regions = torch.rand(5, 80, 90) > 0.5, boxes(5, 70)
    ours = cut_masks(masks, Positives([regions], torch.arange(5), torch.empty(5)), 28)
    assert torch.equal(ours.bool(), BitMasks(masks).crop_and_resize(regions, 28))

    likely = torch.rand(5, 28, 28)
    theirs = paste_masks_in_image(likely, Boxes(regions), (80, 90), 0.5)
    assert torch.equal(paste_masks(likely, regions, 80, 90), theirs)


def test_keypoints() -> None:
    from detectron2.structures import heatmaps_to_keypoints as theirs

    heat, regions = torch.randn(4, 5, 56, 56), boxes(4, 60)
    places, logits = heatmaps_to_keypoints(heat, regions)
    scores = (logits - heat.flatten(2).logsumexp(-1)).exp()
    expected = theirs(heat, regions)
    torch.testing.assert_close(places[..., :2], expected[..., :2])
    torch.testing.assert_close(scores, expected[..., 3])


def test_surfaces() -> None:
    pytest.importorskip("densepose")
    from densepose.converters.chart_output_to_chart_result import (
        densepose_chart_predictor_output_to_result,
    )
    from densepose.structures import DensePoseChartPredictorOutput
    from densepose.structures.chart_result import quantize_densepose_chart_result
    from detectron2.structures import Boxes

    said = torch.randn(5, COARSE + 3 * PARTS, 56, 56)
    batch, instances = scenes((2, 1)), torch.tensor([0, 1, 2, 2, 0])
    regions = batch["boxes"][instances] + torch.randn(5, 4) * 2
    ours = surface_losses(said, regions, instances, batch)
    theirs = densepose_losses(said, regions, instances, batch)
    for name, letter in (("coarse", "S"), ("part", "I"), ("u", "U"), ("v", "V")):
        found, expected = ours[f"loss_surface_{name}"], theirs[f"loss_densepose_{letter}"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    first = said[:1].split((COARSE, PARTS, PARTS, PARTS), dim=1)
    result = densepose_chart_predictor_output_to_result(
        DensePoseChartPredictorOutput(*first), Boxes(torch.tensor([[3.0, 4, 40.5, 30.2]]))
    )
    expected = quantize_densepose_chart_result(result).labels_uv_uint8
    assert torch.equal(read_surface(said[0], 26, 37), expected)


def densepose_losses(
    said: Tensor, regions: Tensor, instances: Tensor, batch: Batch
) -> dict[str, Tensor]:
    """The released losses, with the weights of the released config."""
    from densepose import DensePoseDataRelative, add_densepose_head_config
    from densepose.modeling.losses.chart import DensePoseChartLoss
    from densepose.structures import DensePoseChartPredictorOutput
    from detectron2.config import get_cfg
    from detectron2.structures import Boxes, Instances

    config = get_cfg()
    add_densepose_head_config(config)
    head = config.MODEL.ROI_DENSEPOSE_HEAD
    head.INDEX_WEIGHTS, head.PART_WEIGHTS, head.POINT_REGRESSION_WEIGHTS = 2.0, 0.3, 0.1
    head.NUM_COARSE_SEGM_CHANNELS = COARSE
    head.HEATMAP_SIZE = 56
    annotations = []
    for instance in instances.tolist():
        own = DensePoseDataRelative.__new__(DensePoseDataRelative)
        own.x, own.y, own.i, own.u, own.v = batch["points"][batch["point_owners"] == instance].T
        own.i = own.i.long()
        own.segm = batch["parts"][instance].float()
        annotations.append(own)
    image = Instances((64, 64))
    image.proposal_boxes = Boxes(regions)
    image.gt_boxes = Boxes(batch["boxes"][instances])
    image.gt_densepose = annotations
    output = DensePoseChartPredictorOutput(*said.split((COARSE, *[PARTS] * 3), 1))
    losses: dict[str, Tensor] = DensePoseChartLoss(config)([image], output)
    return losses
