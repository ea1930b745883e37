"""Conversion keeps every activation, whatever the source, and leaves proof."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.convert.conversion import max_feature_difference, write_backbone
from components.convert.detectron2_layout import detectron2_features
from components.core.errors import DataError
from components.core.manifest import Lineage, read_manifest, verify, write_manifest
from components.vision.architectures import Architecture
from components.vision.backbones import STAGES, Backbone, load_backbone, random_backbone
from tests.convert.making import (
    artifact,
    convert,
    features,
    moco_checkpoint,
    supervised,
    trained_encoder,
)

Save = Callable[[Any, Path], None]


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def assert_same_features(source: Backbone, folder: Path, images: Tensor) -> None:
    expected = features(source, images)
    converted = features(load_backbone(folder), images)
    detectron2 = detectron2_features(
        load_file(folder / "detectron2.safetensors"), images, source.architecture
    )
    for stage, tensor in expected.items():
        torch.testing.assert_close(converted[stage], tensor, rtol=0, atol=1e-4)
        torch.testing.assert_close(detectron2[stage], tensor, rtol=0, atol=1e-4)


def facts(folder: Path) -> dict[str, Any]:
    return verify(folder).facts


FILES: dict[str, tuple[Callable[[Backbone], Any], Save, str, str]] = {
    "moco v1, before torch 1.6": (moco_checkpoint, save_legacy, "moco", "moco"),
    "moco v1": (moco_checkpoint, torch.save, "moco", "moco"),
    "moco v2": (lambda e: moco_checkpoint(e, version=2), save_legacy, "moco", "moco"),
    "torchvision": (supervised, torch.save, "resnet", "supervised"),
    "torchvision of 2017": (
        lambda e: {k: v for k, v in supervised(e).items() if "num_batches" not in k},
        save_legacy,
        "resnet",
        "supervised",
    ),
    "training script": (
        lambda e: {"model": {f"module.{k}": v for k, v in supervised(e).items()}, "epoch": 3},
        torch.save,
        "resnet",
        "supervised",
    ),
    "parameters": (
        lambda e: {"state_dict": {**e.state_dict(), **dict(e.named_parameters())}},
        torch.save,
        "resnet",
        "unknown",
    ),
    "safetensors": (supervised, save_file, "resnet", "supervised"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_activation_survives_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    content, save, source, origin = FILES[name]
    encoder = trained_encoder()
    save(content(encoder), tmp_path / "checkpoint")

    folder = convert(tmp_path / "checkpoint", tmp_path / "backbone")

    assert_same_features(encoder, folder, torch.randn(2, 3, 48, 40))
    assert facts(folder)["source"] == source
    assert facts(folder)["origin"] == origin
    assert facts(folder)["max_feature_difference"] <= 1e-6
    assert json.loads((folder / "backbone.json").read_text())["channel_order"] == "RGB"


@pytest.mark.parametrize(
    ("stage", "card", "origin"),
    [
        ("pretrain", {"mechanism": "moco"}, "moco"),
        ("pretrain", {"mechanism": "end_to_end"}, "end_to_end"),
        ("classification", {}, "supervised"),
    ],
)
def test_every_activation_survives_from_our_own_artifacts(
    tmp_path: Path, stage: str, card: dict[str, str], origin: str
) -> None:
    encoder = trained_encoder()
    folder = convert(
        artifact(tmp_path / "encoder", encoder, stage, **card), tmp_path / "backbone", source=stage
    )
    assert_same_features(encoder, folder, torch.randn(2, 3, 48, 48))
    assert facts(folder)["origin"] == origin
    assert verify(folder).inputs["checkpoint"].name == f"{stage}.encoder"


@pytest.mark.parametrize(
    ("stage", "before", "source", "origin"),
    [
        ("classification.linear", "moco_in1m", "classification", "moco_in1m"),
        ("classification.linear", "random", "classification", "random"),
        ("classification.imagenet", "random", "classification", "supervised"),
        ("classification.imagenet", "moco_in1m", "classification", "moco_in1m_finetuned"),
        ("segmentation", "moco_in1m", "segmentation", "moco_in1m_finetuned"),
    ],
)
def test_an_encoder_is_called_by_what_trained_it_last(
    tmp_path: Path, stage: str, before: str, source: str, origin: str
) -> None:
    """Linear classification trains a layer on top, and leaves the encoder what it was."""
    folder = artifact(tmp_path / "model", trained_encoder(), stage)
    backbone = Lineage(origin="stage", name="convert.backbone", facts={"origin": before})
    manifest = read_manifest(folder).model_copy(update={"inputs": {"backbone": backbone}})
    write_manifest(folder, manifest)
    converted = facts(convert(folder, tmp_path / "backbone"))
    assert (converted["source"], converted["origin"]) == (source, origin)


def test_the_papers_resnet50_survives_from_the_authors_file(tmp_path: Path) -> None:
    encoder = trained_encoder("resnet50")
    state = {f"module.encoder_q.{name}": t for name, t in supervised(encoder).items()}
    save_legacy({"state_dict": state, "arch": "resnet50"}, tmp_path / "moco.pth.tar")
    folder = convert(tmp_path / "moco.pth.tar", tmp_path / "backbone", architecture="resnet50")
    assert_same_features(encoder, folder, torch.randn(1, 3, 64, 64))
    assert facts(folder)["ignored_tensors"] == [
        "module.encoder_q.fc.weight",
        "module.encoder_q.fc.bias",
    ]


@pytest.mark.parametrize(
    "architecture",
    ["resnet34", "resnet101", "resnext50_32x8d", "resnet50_w2", "wide_resnet50_2"],
)
def test_what_a_checkpoint_is_is_known_by_its_shapes(
    tmp_path: Path, architecture: Architecture
) -> None:
    encoder = trained_encoder(architecture)
    torch.save(supervised(encoder), tmp_path / "resnet.pth")
    folder = convert(tmp_path / "resnet.pth", tmp_path / "backbone", architecture="auto")
    assert facts(folder)["architecture"] == architecture
    assert_same_features(encoder, folder, torch.randn(1, 3, 64, 64))


def test_the_random_row_is_its_seed(tmp_path: Path) -> None:
    folder = convert(None, tmp_path / "a", source="random", seed=4)
    again = convert(None, tmp_path / "b", source="random", seed=4)
    assert_same_features(random_backbone("resnet_digits", 4), folder, torch.randn(2, 3, 48, 48))
    assert verify(folder).files == verify(again).files
    assert verify(folder).facts["origin"] == "random"


def test_reports_call_a_backbone_what_the_config_says(tmp_path: Path) -> None:
    torch.save(moco_checkpoint(trained_encoder()), tmp_path / "moco.pth.tar")
    folder = convert(tmp_path / "moco.pth.tar", tmp_path / "backbone", origin="moco_ig1b")
    assert json.loads((folder / "backbone.json").read_text())["origin"] == "moco_ig1b"


def test_half_precision_is_converted_as_the_numbers_that_it_holds(tmp_path: Path) -> None:
    encoder = trained_encoder().half()
    torch.save(supervised(encoder), tmp_path / "half.pth")
    folder = convert(tmp_path / "half.pth", tmp_path / "backbone")
    assert_same_features(encoder.float(), folder, torch.randn(2, 3, 48, 48))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("res2.0.conv1.norm.weight", "res2.0.conv2.norm.weight"),
        ("res3.0.conv1.norm.bias", "res3.0.conv1.norm.running_mean"),
        ("res4.0.conv2.norm.running_var", "res4.0.shortcut.norm.running_var"),
    ],
)
def test_two_swapped_tensors_do_not_pass_the_proof(tmp_path: Path, one: str, other: str) -> None:
    encoder = trained_encoder()
    write_backbone(encoder, "moco", tmp_path)
    assert max_feature_difference(encoder, tmp_path) <= 1e-6
    tensors = load_file(tmp_path / "detectron2.safetensors")
    tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, tmp_path / "detectron2.safetensors")
    assert max_feature_difference(encoder, tmp_path) > 1e-2


def test_features_that_overflow_are_refused_and_leave_no_artifact(tmp_path: Path) -> None:
    encoder = trained_encoder()
    with torch.no_grad():
        encoder.get_parameter("conv1.weight").mul_(1e38)
        encoder.get_parameter("bn1.weight").fill_(1e38)
    torch.save(supervised(encoder), tmp_path / "diverged.pth")
    with pytest.raises(DataError, match="differ from the source's by nan"):
        convert(tmp_path / "diverged.pth", tmp_path / "backbone")
    assert not (tmp_path / "backbone" / "manifest.json").exists()


def test_detectron2_itself_computes_the_same_features(tmp_path: Path) -> None:
    detectron2 = pytest.importorskip(
        "detectron2.modeling.backbone.resnet", reason="detectron2 is not installed; no index has it"
    )
    encoder = trained_encoder("resnet50")
    write_backbone(encoder, "moco", tmp_path)
    stages = detectron2.ResNet.make_default_stages(50, stride_in_1x1=False, norm="FrozenBN")
    stem = detectron2.BasicStem(norm="FrozenBN")
    model = detectron2.ResNet(stem, stages, out_features=list(STAGES)).eval()
    loaded = model.load_state_dict(load_file(tmp_path / "detectron2.safetensors"), strict=False)
    assert not loaded.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found = model(images)
    for stage, expected in features(encoder, images).items():
        torch.testing.assert_close(found[stage], expected, rtol=0, atol=1e-4)


def test_torchvision_loads_the_weights_by_itself(tmp_path: Path) -> None:
    write_backbone(trained_encoder("resnet50"), "moco", tmp_path)
    model = torchvision.models.resnet50(weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(load_file(tmp_path / "backbone.safetensors"), strict=True)


def test_the_command_line_makes_a_random_backbone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.convert", "--config"]
    command += ['{"source":"random","architecture":"resnet_digits"}']
    command += ["--output.backbone", str(tmp_path / "backbone")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=120)
    assert verify(tmp_path / "backbone").facts["max_feature_difference"] == 0
    assert load_backbone(tmp_path / "backbone").architecture == "resnet_digits"
