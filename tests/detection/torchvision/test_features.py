"""Features are the converted backbone's, dilated as detectron2 does it, frozen or tuned."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from components.detection.libraries.torchvision.features import (
    Features,
    FrozenNorm,
    build_features,
)
from components.detection.libraries.torchvision.proposals import Anchors
from components.detection.model import ModelConfig
from components.vision.architectures import Architecture
from components.vision.backbones import feature_maps, load_backbone
from tests.detection.torchvision.making import C4, SMALL, converted, detector, scenes

DC5 = SMALL.derive(kind="dc5")


def features(folder: Path) -> Features:
    """The features of the artifact's pyramid."""
    return build_features(SMALL, load_backbone(folder))[0].eval()


@pytest.mark.parametrize("norm", ["frozen", "tuned"])
@pytest.mark.parametrize(
    "architecture", ["resnet50", "resnet18", "resnext50_32x4d", "resnet50_w2", "resnet_digits"]
)
@torch.inference_mode()
def test_the_body_is_the_converted_backbone(
    architecture: Architecture, norm: str, tmp_path: Path
) -> None:
    folder = converted(tmp_path / "backbone", architecture)
    images = torch.randn(1, 3, 96, 64)
    expected = feature_maps(load_backbone(folder).eval(), images)

    pyramid, none = build_features(SMALL.derive(backbone_norm=norm), load_backbone(folder))
    assert none is None
    found = pyramid.eval().body(images)
    assert list(found) == list(expected)
    for stage in expected:
        torch.testing.assert_close(found[stage], expected[stage])

    c4, conv5 = build_features(C4.derive(backbone_norm=norm), load_backbone(folder))
    (found4,) = c4.eval()(images).values()
    torch.testing.assert_close(found4, expected["res4"])
    assert conv5 is not None
    torch.testing.assert_close(conv5.eval()(found4), expected["res5"])


@torch.inference_mode()
def test_dilated_res5_of_the_paper(tmp_path: Path) -> None:
    folder = converted(tmp_path / "backbone", "resnet50")
    reference = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    reference.load_state_dict(load_backbone(folder).state_dict(), strict=False)
    # torchvision leaves this one undilated; detectron2 dilates all of res5.
    reference.layer4[0].conv2.dilation = reference.layer4[0].conv2.padding = (2, 2)
    reference.fc = reference.avgpool = nn.Identity()
    images = torch.randn(1, 3, 96, 64)

    dilated, _ = build_features(DC5, load_backbone(folder))
    found = dilated.eval().body(images)["res5"]
    assert found.shape == (1, 2048, 6, 4)
    torch.testing.assert_close(found.flatten(1), reference.eval()(images))
    assert dilated(images)["res5"].shape == (1, SMALL.neck_channels, 6, 4)
    assert dilated.strides == (16,)


@torch.inference_mode()
def test_dilated_res5_of_the_miniature(tmp_path: Path) -> None:
    folder = converted(tmp_path / "backbone")
    backbone = load_backbone(folder).eval()
    block = backbone.get_submodule("layer4.0")
    images = torch.randn(1, 3, 96, 64)
    x = feature_maps(backbone, images)["res4"]
    layers = dict(block.named_modules())

    def convolve(maps: Tensor, name: str, norm: str, spread: int) -> Tensor:
        filtered = F.conv2d(maps, layers[name].weight, padding=spread, dilation=spread or 1)
        normed: Tensor = layers[norm](filtered)
        return normed

    y = convolve(x, "conv1", "bn1", 2).relu()
    y = convolve(y, "conv2", "bn2", 2)
    expected = (y + convolve(x, "downsample.0", "downsample.1", 0)).relu()

    dilated, _ = build_features(DC5, load_backbone(folder))
    found = dilated.eval().body(images)["res5"]
    assert found.shape == (1, 128, 12, 8)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("architecture", "strides"),
    [("resnet50", (4, 8, 16, 32, 64)), ("resnet_digits", (2, 4, 8, 16, 32))],
)
@torch.inference_mode()
def test_the_pyramid_halves_from_map_to_map(
    architecture: Architecture, strides: tuple[int, ...], tmp_path: Path
) -> None:
    pyramid = features(converted(tmp_path / "backbone", architecture))
    maps = pyramid(torch.randn(1, 3, 128, 64))
    assert pyramid.strides == strides
    for one, stride in zip(maps.values(), strides, strict=True):
        assert one.shape == (1, SMALL.neck_channels, 128 // stride, 64 // stride)
    *_, p5, p6 = maps.values()
    assert torch.equal(p6, p5[:, :, ::2, ::2])


@pytest.mark.parametrize("model", [SMALL, C4, DC5], ids=["fpn", "c4", "dc5"])
@pytest.mark.parametrize("norm", ["frozen", "tuned"])
def test_only_tuned_norms_move(norm: str, model: ModelConfig, tmp_path: Path) -> None:
    built = detector(tmp_path / "backbone", model.derive(backbone_norm=norm)).train()
    state = load_backbone(tmp_path / "backbone").state_dict()
    optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
    total, _ = built(scenes((1,)))
    total.backward()
    optimizer.step()

    after = {  # conv5 is C4's box head
        name.replace("regions.trunk.0.", "layer4.").removeprefix("features.body."): tensor
        for name, tensor in built.state_dict().items()
    }
    kept = [name for name in state if "bn" in name or "downsample.1" in name]
    kept = [name for name in kept if not name.endswith("num_batches_tracked")]
    assert len(kept) == 4 * 12  # 12 norms
    for name in kept:
        assert torch.equal(after[name], state[name]) == (norm == "frozen"), name
    learned = {name for name, _ in built.named_parameters()}
    assert any("bn1" in name for name in learned) == (norm == "tuned")
    assert any("body.layer1" in name for name in learned)  # FREEZE_AT 0
    assert any("body.conv1" in name for name in learned)


def test_a_frozen_norm_keeps_mixed_precision() -> None:
    norm = nn.BatchNorm2d(4).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 2)
    maps = torch.randn(2, 4, 3, 3)
    frozen = FrozenNorm(norm)
    torch.testing.assert_close(frozen(maps), norm(maps))
    assert frozen(maps.bfloat16()).dtype == torch.bfloat16
    assert not list(frozen.parameters())


def test_anchors_have_exact_sizes_on_exact_strides() -> None:
    anchors = Anchors(((32.0,), (64.0, 128.0)), (0.5, 1.0, 2.0), (32, 64))
    assert anchors.num_anchors_per_location() == [3, 6]
    images = torchvision.models.detection.image_list.ImageList(
        torch.zeros(1, 3, 96, 96), [(96, 90)]
    )
    # Half of 3 places is 2: the last one reaches over the image, and the stride is still 64.
    (boxes,) = anchors(images, [torch.zeros(1, 8, 3, 3), torch.zeros(1, 8, 2, 2).bfloat16()])
    assert boxes.shape == (9 * 3 + 4 * 6, 4) and boxes.dtype == torch.float32
    sides = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(
        sides.prod(1), torch.tensor([32.0**2] * 27 + [64.0**2, 128.0**2] * 12)
    )
    torch.testing.assert_close(
        (sides[:, 1] / sides[:, 0])[:3].sort().values, torch.tensor([0.5, 1, 2])
    )
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    torch.testing.assert_close(centres[3], torch.tensor([32.0, 0]))
    torch.testing.assert_close(centres[-1], torch.tensor([64.0, 64]))
