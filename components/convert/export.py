"""A converted backbone in the forms that other tools read; nothing is sent anywhere."""

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from components.core.errors import UsageError
from components.vision.architectures import (
    CARD,
    DETECTRON2_WEIGHTS,
    RESNETS,
    TORCHVISION_WEIGHTS,
    Architecture,
    BackboneCard,
    ResNet,
)

IN_CODE_DIGEST = False  # what is trained is there already

Form = Literal["torchvision", "timm", "huggingface", "detectron2", "onnx"]
Tensors = dict[str, npt.NDArray[Any]]

WEIGHTS = "model.safetensors"
SIZE = 224  # pixels that a card names; any will do

_TORCHVISION: Mapping[Architecture, str] = {
    **{name: f"{name}()" for name in RESNETS if name.startswith(("resnet1", "resnet3"))},
    "resnet50": "resnet50()",
    "resnext50_32x4d": "resnext50_32x4d()",
    "resnext50_32x8d": (
        "ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], groups=32, width_per_group=8)"
    ),
    "wide_resnet50_2": "wide_resnet50_2()",
}
"""How torchvision makes each that it has."""
_TIMM: Mapping[Architecture, tuple[str, Mapping[str, int]]] = {
    **{name: (name, {}) for name in _TORCHVISION},
    "resnext50_32x8d": ("resnext50_32x4d", {"cardinality": 32, "base_width": 8}),
}
"""timm's name of each that it has, and what of it is to be changed."""


def export(folder: Path, form: Form, destination: Path) -> str:
    """Write a backbone as another tool reads it.

    Args:
        folder: The artifact of the `convert` stage.
        form: Whose.
        destination: An empty folder.

    Returns:
        Python that loads it, with FOLDER where the destination stands.

    Raises:
        UsageError: if that tool has no such network, or a package is missing.
    """
    card = BackboneCard.model_validate_json((folder / CARD).read_text("utf-8"))
    return _WRITERS[form](folder, card, destination)


def _torchvision(folder: Path, card: BackboneCard, destination: Path) -> str:
    made = _known(card, _TORCHVISION, "torchvision")
    shutil.copyfile(folder / TORCHVISION_WEIGHTS, destination / WEIGHTS)
    return (
        f"model = torchvision.models.{made}  # its fc is left as it is drawn\n"
        f'weights = safetensors.torch.load_file("FOLDER/{WEIGHTS}")\n'
        "model.load_state_dict(weights, strict=False)\n"
    )


def _timm(folder: Path, card: BackboneCard, destination: Path) -> str:
    architecture, changes = _known(card, _TIMM, "timm")
    shutil.copyfile(folder / TORCHVISION_WEIGHTS, destination / WEIGHTS)
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": RESNETS[card.architecture].channels[-1],
        "pretrained_cfg": {
            "input_size": [3, SIZE, SIZE],
            "mean": [value / 255 for value in card.mean],
            "std": [value / 255 for value in card.std],
            "num_classes": 0,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
    if changes:
        config["model_args"] = dict(changes)
    _write_json(destination / "config.json", config)
    return (
        'model = timm.create_model("local-dir:FOLDER", pretrained=True)\n'
        "features = model.forward_features(images)\n"
        "pooled = model(images)\n"
    )


def _hugging_face(folder: Path, card: BackboneCard, destination: Path) -> str:
    resnet = RESNETS[card.architecture]
    if not resnet.pooled or (resnet.bottleneck and resnet.widths != resnet.stage_planes):
        raise _unknown(card, "Hugging Face's ResNetModel")
    tensors = load_file(folder / TORCHVISION_WEIGHTS)
    save_file(
        {_hugging_face_name(name): tensor for name, tensor in tensors.items()},
        destination / WEIGHTS,
        {"format": "pt"},
    )
    _write_json(destination / "config.json", _hugging_face_config(resnet))
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "size": {"shortest_edge": SIZE},
        "image_mean": [value / 255 for value in card.mean],
        "image_std": [value / 255 for value in card.std],
    }
    _write_json(destination / "preprocessor_config.json", processor)
    return (
        'model = transformers.AutoModel.from_pretrained("FOLDER")\n'
        'process = transformers.AutoImageProcessor.from_pretrained("FOLDER")\n'
        'features = model(**process(image, return_tensors="pt")).last_hidden_state\n'
    )


def _hugging_face_config(resnet: ResNet) -> dict[str, Any]:
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": resnet.stem,
        "hidden_sizes": list(resnet.channels),
        "depths": list(resnet.blocks),
        "layer_type": "bottleneck" if resnet.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def _hugging_face_name(name: str) -> str:
    """Translate torchvision's name of a tensor: stages, layers and convolutions from 0."""
    layer, _, rest = name.partition(".")
    if not layer.startswith("layer"):
        kind = "convolution" if layer == "conv1" else "normalization"
        return f"embedder.embedder.{kind}.{rest}"
    block, part, tensor = rest.split(".", 2)
    before = f"encoder.stages.{int(layer[-1]) - 1}.layers.{block}"
    if part == "downsample":
        number, _, tensor = tensor.partition(".")
        return f"{before}.shortcut.{('convolution', 'normalization')[int(number)]}.{tensor}"
    kind = "convolution" if part.startswith("conv") else "normalization"
    return f"{before}.layer.{int(part[-1]) - 1}.{kind}.{tensor}"


def _detectron2(folder: Path, card: BackboneCard, destination: Path) -> str:
    if not RESNETS[card.architecture].pooled:
        raise _unknown(card, "detectron2")
    tensors: Tensors = load_file(folder / DETECTRON2_WEIGHTS)
    model = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    content = {"model": model, "__author__": "moco-transfer", "matching_heuristics": True}
    (destination / "model.pkl").write_bytes(pickle.dumps(content, protocol=4))
    return (
        'cfg.MODEL.WEIGHTS = "FOLDER/model.pkl"\n'
        'cfg.INPUT.FORMAT, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = "RGB", False\n'
        f"cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = {list(card.mean)}, {list(card.std)}\n"
    )


def _onnx(folder: Path, _: BackboneCard, destination: Path) -> str:
    from components.convert.onnx_graph import write_onnx

    try:
        write_onnx(folder, destination / "model.onnx")
    except ModuleNotFoundError as error:
        raise UsageError(f"ONNX needs {error.name}: install moco-transfer[export]") from None
    return (
        'session = onnxruntime.InferenceSession("FOLDER/model.onnx")\n'
        "# images: (N, 3, H, W), RGB, normalised\n"
        'pooled, res5 = session.run(["pooled", "res5"], {"images": images})\n'
    )


_WRITERS: Mapping[Form, Callable[[Path, BackboneCard, Path], str]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "huggingface": _hugging_face,
    "detectron2": _detectron2,
    "onnx": _onnx,
}


def _known(card: BackboneCard, made: Mapping[Architecture, Any], tool: str) -> Any:
    if card.architecture not in made:
        raise _unknown(card, tool)
    return made[card.architecture]


def _unknown(card: BackboneCard, tool: str) -> UsageError:
    return UsageError(
        f"{tool} has no {card.architecture}; onnx takes any architecture, and the artifact's own "
        f"{TORCHVISION_WEIGHTS} is torchvision's names in safetensors"
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
