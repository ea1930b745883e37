"""The backbone inside a detector gives what the converted one gives, in both libraries."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.core.errors import DataError
from components.detection.interface import Head
from components.detection.libraries.building import build_detector
from components.detection.model import ModelConfig
from components.vision.architectures import CARD, DETECTRON2_WEIGHTS, Architecture
from components.vision.backbones import Backbone, feature_maps, load_backbone
from tests.detection.detectron2.making import KINDS, converted

pytest.importorskip("detectron2", reason="needs detectron2: make detectron2")

TOLERANCE = 1e-4
ARCHITECTURES: tuple[Architecture, ...] = (
    "resnet50",
    "resnet18",
    "resnet101",
    "resnext50_32x4d",
    "resnet50_w2",
    "wide_resnet50_2",
    "resnet_digits",
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "artifact"
    converted(folder, request.param)
    return folder


@pytest.mark.parametrize("norm", ["tuned", "frozen"])
def test_a_pyramid_reads_the_converted_features(artifact: Path, norm: str) -> None:
    model = built(KINDS["fpn"].derive(backbone_norm=norm), artifact)

    assert_equal(model.backbone.bottom_up(images()), feature_maps(source(artifact), images()))


def test_c4_has_the_first_stages_and_its_heads_the_last(artifact: Path) -> None:
    model = built(KINDS["c4_before"], artifact)
    expected = feature_maps(source(artifact), images())

    found = model.backbone(images())
    blocks = model.roi_heads.res5[:-1]  # without the norm that is added

    assert_equal(found, {"res4": expected["res4"]})
    assert_equal({"res5": blocks(found["res4"])}, {"res5": expected["res5"]})


def test_dilated_conv5_keeps_the_resolution_of_conv4(artifact: Path) -> None:
    model = built(KINDS["dc5"], artifact)
    dilated = source(artifact)
    dilate(dilated.layer4)
    expected = feature_maps(dilated, images())

    found = model.backbone.bottom_up(images())

    assert_equal(found, {"res5": expected["res5"]})
    assert found["res5"].shape[2:] == expected["res4"].shape[2:]


@pytest.mark.parametrize("kind", ["fpn", "c4", "dc5"])
def test_torchvision_reads_the_same_features(artifact: Path, kind: str) -> None:
    features = pytest.importorskip(
        "components.detection.libraries.torchvision.features", reason="needs the other library"
    )
    other, _ = features.build_features(KINDS[kind], load_backbone(artifact))
    expected = other.eval().body(images())

    trunk = built(KINDS[kind], artifact).backbone
    found = getattr(trunk, "bottom_up", trunk)(images())

    assert_equal(found, {name: expected[name] for name in found})


def test_a_backbone_that_lacks_tensors_is_refused_by_name(tmp_path: Path) -> None:
    converted(tmp_path / "backbone")
    path = tmp_path / "backbone" / DETECTRON2_WEIGHTS
    tensors = load_file(path)
    del tensors["res5.0.conv1.weight"]
    save_file(tensors, path)

    with pytest.raises(DataError, match=r"1 missing: res5\.0\.conv1\.weight"):
        built(KINDS["c4"], tmp_path / "backbone")


def test_a_bgr_backbone_is_refused(tmp_path: Path) -> None:
    converted(tmp_path / "backbone")
    card = tmp_path / "backbone" / CARD
    card.write_text(card.read_text().replace("RGB", "BGR"))

    with pytest.raises(DataError, match="channel_order"):
        built(KINDS["fpn"], tmp_path / "backbone")


def built(model: ModelConfig, artifact: Path) -> Any:
    """detectron2's model, in evaluation mode."""
    return build_detector("detectron2", model, artifact, Head(2)).eval().model


def source(artifact: Path) -> Backbone:
    """The converted backbone as the project reads it elsewhere."""
    return load_backbone(artifact).eval()


def dilate(stage: nn.Module) -> None:
    """Dilation 2 and stride 1, in every block of a stage."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)


def images() -> Tensor:
    return torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, maps in expected.items():
        torch.testing.assert_close(found[name], maps, rtol=0, atol=TOLERANCE)
