"""The names of torchvision and detectron2 are in one-to-one correspondence."""

import re

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from components.convert.detectron2_layout import detectron2_name, detectron2_tensors

NORM = st.sampled_from(["weight", "bias", "running_mean", "running_var"])
PARTS = st.one_of(
    st.sampled_from(["conv1.weight", "conv2.weight", "conv3.weight", "downsample.0.weight"]),
    st.builds("bn{}.{}".format, st.integers(1, 3), NORM),
    st.builds("downsample.1.{}".format, NORM),
)
NAMES = st.one_of(
    st.just("conv1.weight"),
    st.builds("bn1.{}".format, NORM),
    st.builds("layer{}.{}.{}".format, st.integers(1, 4), st.integers(0, 35), PARTS),
)


def torchvision_name(name: str) -> str:
    """The way back, stated on its own."""
    name = name.removeprefix("stem.")
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    return re.sub(r"conv(\d)\.norm", r"bn\1", name)


@given(NAMES)
def test_the_way_back_leads_to_the_same_name(name: str) -> None:
    converted = detectron2_name(name)
    assert converted is not None
    assert torchvision_name(converted) == name


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_no_two_tensors_of_a_resnet_share_a_name(depth: int) -> None:
    with torch.device("meta"):
        model = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    tensors = {name: t for name, t in model.state_dict().items() if not name.startswith("fc.")}
    kept = [name for name in tensors if not name.endswith("num_batches_tracked")]
    assert len(detectron2_tensors(tensors)) == len(kept)


@pytest.mark.parametrize(
    ("torchvisions", "detectron2s"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.conv3.weight", "res2.0.conv3.weight"),
        ("layer1.0.downsample.0.weight", "res2.0.shortcut.weight"),
        ("layer2.0.downsample.1.bias", "res3.0.shortcut.norm.bias"),
        ("layer4.2.bn2.running_mean", "res5.2.conv2.norm.running_mean"),
        ("layer4.2.bn2.num_batches_tracked", None),
    ],
)
def test_names_are_those_of_detectron2(torchvisions: str, detectron2s: str | None) -> None:
    assert detectron2_name(torchvisions) == detectron2s
