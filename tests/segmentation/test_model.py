"""The network of Appendix A.5 against an independent construction, and its loss."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from components.core.errors import DataError
from components.segmentation.model import FCN, ModelCard, read_model, write_model
from components.vision.architectures import Architecture
from components.vision.backbones import build_backbone, dilate_res5, feature_maps

CARD = ModelCard(
    architecture="resnet_digits",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    dataset="voc",
    classes=("background", "one", "two"),
    channels=8,
    iterations=1,
)


def network(architecture: Architecture = "resnet_digits") -> FCN:
    torch.manual_seed(0)
    return FCN(build_backbone(architecture), classes=3, channels=8)


def test_dilated_features_are_those_of_a_network_built_otherwise() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet50").eval()
    peer = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, False, True]
    ).eval()
    peer.load_state_dict(backbone.state_dict(), strict=False)
    images = torch.randn(2, 3, 97, 65)

    with torch.no_grad():
        dilate_res5(backbone.layer4)
        ours = feature_maps(backbone, images)
        stem = peer.maxpool(peer.relu(peer.bn1(peer.conv1(images))))
        res4 = peer.layer3(peer.layer2(peer.layer1(stem)))
        theirs = peer.layer4(res4)
        assert ours["res4"].shape[2:] == ours["res5"].shape[2:] == (7, 5)  # stride 16
        torch.testing.assert_close(ours["res4"], res4)
        # torchvision leaves the first block undilated: the same weights, another network.
        assert (ours["res5"] - theirs).abs().max() > 0.1 * theirs.abs().max()
        peer.layer4[0].conv2.dilation = peer.layer4[0].conv2.padding = (2, 2)
        torch.testing.assert_close(ours["res5"], peer.layer4(res4))


@pytest.mark.parametrize(("architecture", "stride"), [("resnet50", 16), ("resnet_digits", 8)])
def test_scores_have_the_size_of_any_image(architecture: Architecture, stride: int) -> None:
    fcn = network(architecture).eval()
    assert [m.dilation for m in fcn.head if isinstance(m, torch.nn.Conv2d)] == [
        (6, 6),
        (6, 6),
        (1, 1),
    ]
    images = torch.randn(1, 3, 75, 50)
    with torch.no_grad():
        maps = fcn.head(feature_maps(fcn.backbone, images)["res5"])
        assert maps.shape == (1, 3, -(-75 // stride), -(-50 // stride))
        assert fcn.logits(images).shape == (1, 3, 75, 50)


def test_scores_lie_on_the_pixels_that_their_outputs_are_centred_on() -> None:
    fcn = network("resnet50").eval()
    images = torch.randn(1, 3, 65, 49)
    with torch.no_grad():
        maps = fcn.head(feature_maps(fcn.backbone, images)["res5"])
        torch.testing.assert_close(fcn.logits(images)[:, :, ::16, ::16], maps)
        # Images are padded by what training pads them with, and cut again.
        torch.testing.assert_close(
            fcn.logits(F.pad(images, (0, 16)))[..., :60], fcn.logits(F.pad(images, (0, 11)))
        )


def loss(fcn: FCN, images: Tensor, labels: Tensor) -> Tensor:
    found: Tensor = fcn({"images": images, "labels": labels})[0]
    return found


def test_ignored_pixels_have_no_part_in_the_loss() -> None:
    fcn = network().eval()
    images = torch.randn(2, 3, 33, 33)
    labels = torch.randint(0, 3, (2, 33, 33))
    labels[:, 10:20] = 255
    found = loss(fcn, images, labels)
    scores = fcn.logits(images).permute(0, 2, 3, 1)[labels != 255]
    torch.testing.assert_close(found, F.cross_entropy(scores, labels[labels != 255]))

    nothing = loss(fcn, images, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing == 0
    assert all(p.grad is not None and not p.grad.any() for p in fcn.parameters())


def test_a_stored_model_segments_as_before(tmp_path: Path) -> None:
    fcn = network().eval()
    write_model(tmp_path, fcn, CARD)
    again, card = read_model(tmp_path)
    images = torch.randn(1, 3, 40, 40)
    assert card == CARD
    assert torch.equal(again.eval().logits(images), fcn.logits(images))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"task": "imagenet", "architecture": "resnet50"}')
    with pytest.raises(DataError, match="does not describe a segmentation model"):
        read_model(tmp_path)
