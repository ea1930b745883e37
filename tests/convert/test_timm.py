"""Every ResNet of timm's is converted with its own features, or refused for what it is."""

import json
import math
import struct
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from components.convert import ConvertConfig
from components.convert.sources import locate
from components.core.errors import DataError
from components.vision.backbones import load_backbone
from tests.convert.making import convert, features

SAME = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "wide_resnet50_2",
)
SMOOTHED = ("resnetaa50", "resnetblur18", "resnetblur50")
"""They pool before they stride, which no tensor shows."""


def write_sparse(model: nn.Module, path: Path) -> None:
    """Write a safetensors file of a model without memory: its header, and a hole of its size."""
    header, offset = {}, 0
    for name, tensor in model.state_dict().items():
        dtype, size = ("I64", 8) if tensor.dtype == torch.int64 else ("F32", 4)
        end = offset + size * math.prod(tensor.shape)
        header[name] = {
            "dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]
        }  # fmt: skip
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + offset)


@pytest.mark.parametrize("name", SAME)
def test_a_resnet_of_timms_keeps_its_own_features(name: str, tmp_path: Path) -> None:
    model = timm.create_model(name, pretrained=False, num_classes=10).eval()
    torch.save({"arch": name, "state_dict": model.state_dict()}, tmp_path / "timm.pth")
    folder = convert(tmp_path / "timm.pth", tmp_path / "backbone", architecture="auto")
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model.forward_features(images)
    torch.testing.assert_close(features(load_backbone(folder), images)["res5"], expected)


def test_all_others_of_timms_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dir(nn.init):  # nothing is drawn where there is no memory; it would take long
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *how, **named: tensor)
    path = tmp_path / "timm.safetensors"
    fitting = []
    for name in timm.list_models(module="resnet"):
        with torch.device("meta"):
            write_sparse(timm.create_model(name, pretrained=False), path)
        try:
            fitting.append((name, locate(path, ConvertConfig()).architecture))
        except DataError as error:
            assert "does not fit a" in str(error), name
    assert dict(fitting) == {name: name for name in SAME} | {
        name: f"resnet{name[-2:]}" for name in SMOOTHED
    }


@pytest.mark.parametrize("name", SMOOTHED)
def test_one_that_pools_before_it_strides_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    model = timm.create_model(name, pretrained=False)
    torch.save({"arch": name, "state_dict": model.state_dict()}, tmp_path / "timm.pth.tar")
    with pytest.raises(DataError, match=f"is a {name}, which pools before it strides"):
        locate(tmp_path / "timm.pth.tar", ConvertConfig())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(DataError, match=f"is a {name}, which pools before it strides"):
        locate(tmp_path / "pytorch_model.bin", ConvertConfig())
