"""What is exported computes in the other tool what the backbone computes here."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from components.convert.conversion import write_backbone
from components.convert.export import Form, export
from components.core.errors import UsageError
from components.vision.architectures import Architecture
from components.vision.backbones import Backbone, load_backbone
from tests.convert.making import convert, features, trained_encoder

IMAGES = torch.randn(2, 3, 64, 96)
close = torch.testing.assert_close


def exported(tmp_path: Path, architecture: Architecture, form: Form) -> tuple[Backbone, Path, str]:
    """A backbone, the folder that it was exported to, and the lines that load it."""
    encoder = trained_encoder(architecture)
    for name in ("backbone", "out"):
        (tmp_path / name).mkdir()
    write_backbone(encoder, "moco", tmp_path / "backbone")
    usage = export(tmp_path / "backbone", form, tmp_path / "out")
    return encoder.eval(), tmp_path / "out", usage.replace("FOLDER", str(tmp_path / "out"))


@pytest.mark.parametrize("architecture", ["resnet18", "resnext50_32x8d", "wide_resnet50_2"])
@torch.inference_mode()
def test_torchvision_loads_it_by_the_lines_that_are_given(
    tmp_path: Path, architecture: Architecture
) -> None:
    encoder, _, usage = exported(tmp_path, architecture, "torchvision")
    namespace: dict[str, Any] = {"torchvision": torchvision, "safetensors": safetensors}
    exec(usage, namespace)
    model = namespace["model"].eval()
    model.fc = torch.nn.Identity()
    close(model(IMAGES), encoder(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "resnext50_32x8d"])
@torch.inference_mode()
def test_timm_loads_it_by_the_lines_that_are_given(
    tmp_path: Path, architecture: Architecture
) -> None:
    encoder, _, usage = exported(tmp_path, architecture, "timm")
    namespace: dict[str, Any] = {"timm": timm, "images": IMAGES}
    exec(usage.replace("pretrained=True)", "pretrained=True).eval()"), namespace)
    close(namespace["features"], features(encoder, IMAGES)["res5"], rtol=1e-4, atol=1e-4)
    close(namespace["pooled"], encoder(IMAGES), rtol=1e-4, atol=1e-4)


def test_the_readme_has_the_lines_for_timm(tmp_path: Path) -> None:
    _, folder, usage = exported(tmp_path, "resnet18", "timm")
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert usage.replace(str(folder), "FOLDER") in readme


@pytest.mark.parametrize(
    ("form", "file"), [("huggingface", "model.safetensors"), ("detectron2", "model.pkl")]
)
@pytest.mark.parametrize("architecture", ["resnet34", "resnet50", "resnet50_w2"])
def test_what_is_exported_is_read_back_the_same(
    tmp_path: Path, architecture: Architecture, form: Form, file: str
) -> None:
    encoder, folder, _ = exported(tmp_path, architecture, form)
    again = load_backbone(convert(folder / file, tmp_path / "again", architecture="auto"))
    assert again.architecture == architecture
    expected = encoder.state_dict()
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in again.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


@torch.inference_mode()
def test_hugging_faces_model_computes_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    encoder, folder, _ = exported(tmp_path, "resnet18", "huggingface")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    found = model(IMAGES).last_hidden_state
    close(found, features(encoder, IMAGES)["res5"], rtol=1e-4, atol=1e-4)


def test_hugging_faces_config_says_what_a_resnet_is(tmp_path: Path) -> None:
    _, folder, _ = exported(tmp_path, "resnet50", "huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_sizes"], config["depths"]) == ([256, 512, 1024, 2048], [3, 4, 6, 3])


@pytest.mark.parametrize("architecture", ["resnet_digits", "resnet50_w2", "resnext50_32x4d"])
@torch.inference_mode()
def test_onnx_computes_the_same_at_any_size(tmp_path: Path, architecture: Architecture) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    encoder, _, usage = exported(tmp_path, architecture, "onnx")
    namespace: dict[str, Any] = {"onnxruntime": onnxruntime, "images": IMAGES.numpy()}
    exec(usage, namespace)
    pooled, res5 = (torch.from_numpy(namespace[name]) for name in ("pooled", "res5"))
    close(pooled, encoder(IMAGES), rtol=1e-4, atol=1e-4)
    close(res5, features(encoder, IMAGES)["res5"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "form"),
    [
        ("resnet_digits", "torchvision"),
        ("resnet50_w2", "timm"),
        ("resnext50_32x4d", "huggingface"),
        ("resnet_digits", "detectron2"),
    ],
)
def test_what_a_tool_does_not_have_is_refused(
    tmp_path: Path, architecture: Architecture, form: Form
) -> None:
    with pytest.raises(UsageError, match=f"has no {architecture}; onnx takes any"):
        exported(tmp_path, architecture, form)


def test_without_onnx_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"needs onnx: install moco-transfer\[export\]"):
        exported(tmp_path, "resnet_digits", "onnx")
