"""Backbones: torchvision's network and names, and only what fits is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from components.core.errors import DataError
from components.vision.architectures import RESNETS, Architecture, relative_cost, tensor_shapes
from components.vision.backbones import (
    STAGES,
    Backbone,
    build_backbone,
    feature_maps,
    load_backbone,
    random_backbone,
)

ARCHITECTURES: tuple[Architecture, ...] = (
    "resnet50",
    "resnet18",
    "resnext50_32x4d",
    "resnet_digits",
)
"""A bottleneck, a basic block, groups and another stem; the rest differ by numbers alone."""
TORCHVISIONS: tuple[Architecture, ...] = tuple(
    name for name in RESNETS if hasattr(torchvision.models, name)
)


def save(backbone: Backbone, folder: Path, **card: object) -> Path:
    save_file(backbone.state_dict(), folder / "backbone.safetensors")
    description = {"architecture": backbone.architecture, "origin": "random", **card}
    (folder / "backbone.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize("architecture", TORCHVISIONS)
def test_a_resnet_is_torchvisions_without_fc(architecture: Architecture) -> None:
    theirs = torchvision.models.get_model(architecture, weights=None)
    theirs.fc = nn.Identity()
    ours = build_backbone(architecture)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())

    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert ours.num_features == theirs.layer4[-1].conv1.in_channels
    assert [
        [module.out_channels for module in layer.modules() if isinstance(module, nn.Conv2d)][-1]
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    ] == list(RESNETS[architecture].channels)


def test_resnet50_starts_as_torchvisions_does() -> None:
    torch.manual_seed(5)
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    ours = random_backbone("resnet50", seed=5).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("architecture", "size", "channels", "strides"),
    [
        ("resnet50", 64, (256, 512, 1024, 2048), (4, 8, 16, 32)),
        ("resnet_digits", 48, (16, 32, 64, 128), (2, 4, 8, 16)),
    ],
)
def test_feature_maps_have_the_documented_strides(
    architecture: Architecture, size: int, channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    backbone = build_backbone(architecture).eval()
    with torch.inference_mode():
        maps = feature_maps(backbone, torch.randn(2, 3, size, size))
        pooled = backbone(torch.randn(2, 3, size, size))
    assert tuple(maps) == STAGES
    for stage, width, stride in zip(STAGES, channels, strides, strict=True):
        assert maps[stage].shape == (2, width, size // stride, size // stride)
    assert pooled.shape == (2, backbone.num_features) == (2, channels[-1])


def test_the_miniature_has_torchvisions_names() -> None:
    torchvisions = set(torchvision.models.resnet18(weights=None).state_dict())
    ours = set(build_backbone("resnet_digits").state_dict())
    assert ours < torchvisions
    assert {name.split(".")[0] for name in torchvisions - ours} == {
        "fc", "layer1", "layer2", "layer3", "layer4",
    }  # fmt: skip


def test_the_miniature_starts_by_torchvisions_rule() -> None:
    backbone = random_backbone("resnet_digits", seed=0)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 1000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert float(module.weight.detach().std()) == pytest.approx(
                (2 / fan_out) ** 0.5, rel=0.15
            )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_always_gives_the_same_backbone_and_leaves_the_generator_alone(
    architecture: Architecture,
) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (random_backbone(architecture, seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_a_saved_backbone_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    backbone = random_backbone("resnet_digits", seed=1)
    loaded = load_backbone(save(backbone, tmp_path))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[name])


def test_bgr_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = save(build_backbone("resnet_digits"), tmp_path, channel_order="BGR")
    with pytest.raises(DataError, match=r"(?s)channel_order.*BGR.*Convert the original"):
        load_backbone(folder)


def test_a_folder_that_was_not_converted_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no backbone.json.*python -m components.convert"):
        load_backbone(tmp_path)


def drop_one(tensors: dict[str, Tensor]) -> None:
    del tensors["layer2.0.conv1.weight"]


def add_one(tensors: dict[str, Tensor]) -> None:
    tensors["fc.weight"] = torch.zeros(2)


def reshape_one(tensors: dict[str, Tensor]) -> None:
    tensors["bn1.bias"] = torch.zeros(5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_one, "1 missing: layer2.0.conv1.weight"),
        (add_one, "1 unexpected: fc.weight"),
        (reshape_one, r"1 of another shape: bn1.bias \(5,\) instead of \(16,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    folder = save(build_backbone("resnet_digits"), tmp_path)
    tensors = dict(build_backbone("resnet_digits").state_dict())
    change(tensors)
    save_file(tensors, folder / "backbone.safetensors")
    with pytest.raises(DataError, match=message):
        load_backbone(folder)


def test_a_cut_weights_file_is_refused(tmp_path: Path) -> None:
    folder = save(build_backbone("resnet_digits"), tmp_path)
    weights = folder / "backbone.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        load_backbone(folder)


@pytest.mark.parametrize("architecture", RESNETS)
def test_shapes_are_known_without_the_network(architecture: Architecture) -> None:
    with torch.device("meta"):
        tensors = build_backbone(architecture).state_dict()
    assert tensor_shapes(architecture) == {name: tuple(t.shape) for name, t in tensors.items()}


@pytest.mark.parametrize(
    ("architecture", "million"),
    [
        ("resnet50", 24),
        ("resnext50_32x8d", 46),
        ("resnet50_w2", 94),
        ("resnet50_w4", 375),
    ],
)
def test_encoders_of_table_1_have_its_numbers_of_parameters(
    architecture: Architecture, million: int
) -> None:
    assert round(RESNETS[architecture].parameters / 1e6) == million


@pytest.mark.parametrize("architecture", TORCHVISIONS)
def test_the_cost_of_an_encoder_is_that_of_its_convolutions(architecture: Architecture) -> None:
    """torchvision states operations at 224 pixels, the classifier included."""
    stated = {
        name: torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta["_ops"]
        for name in (architecture, "resnet50")
    }
    assert relative_cost(architecture) == pytest.approx(
        stated[architecture] / stated["resnet50"], rel=0.01
    )
