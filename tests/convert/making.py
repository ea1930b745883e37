"""Makes real checkpoints of every source, and runs the stage on them in this process."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.convert import STAGE
from components.core.main import execute
from components.core.manifest import Code, Manifest, hash_folder, write_manifest
from components.vision.architectures import Architecture
from components.vision.backbones import Backbone, build_backbone, feature_maps


def trained_encoder(architecture: Architecture = "resnet_digits", seed: int = 0) -> Backbone:
    """An encoder no two tensors of which are alike, its batch norms included."""
    backbone = build_backbone(architecture).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                assert module.num_batches_tracked is not None
                module.weight.uniform_(0.3, 0.8, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.num_batches_tracked.fill_(17)
    return backbone


class MoCo(nn.Module):
    """The parts of the authors' model that its checkpoints show."""

    def __init__(self, encoder: Backbone, version: int) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = (
            trained_encoder(encoder.architecture, seed) for seed in (1, 2)
        )
        self.encoder_q.load_state_dict(encoder.state_dict())
        width = encoder.num_features
        for one in (self.encoder_q, self.encoder_k):
            one.fc = (
                nn.Linear(width, 8)
                if version == 1
                else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))
            )
        self.register_buffer("queue", torch.randn(8, 32))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


def moco_checkpoint(encoder: Backbone, version: int = 1) -> dict[str, Any]:
    """What the authors' training script saves after an epoch, the optimiser's state included."""
    model = nn.Module()
    model.module = MoCo(encoder, version)
    parameters = list(model.module.encoder_q.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    state = model.state_dict()
    saved = OrderedDict((name, tensor.clone()) for name, tensor in state.items())
    saved._metadata = state._metadata  # type: ignore[attr-defined]
    optimizer.step()
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": saved,
        "optimizer": optimizer.state_dict(),
    }


def supervised(encoder: Backbone) -> dict[str, Tensor]:
    """A state dict with a classification layer, as torchvision and timm publish it."""
    head = nn.Linear(encoder.num_features, 10)
    return {
        **encoder.state_dict(),
        "fc.weight": head.weight.detach(),
        "fc.bias": head.bias.detach(),
    }


def artifact(folder: Path, encoder: Backbone, stage: str, **card: object) -> Path:
    """An artifact of ours, with its manifest."""
    folder.mkdir()
    save_file(encoder.state_dict(), folder / "encoder.safetensors")
    save_file({"0.weight": torch.zeros(2)}, folder / "head.safetensors")
    description = {"architecture": encoder.architecture, "channel_order": "RGB", **card}
    (folder / "model.json").write_text(json.dumps(description))
    code = Code(version="0", commit=None, digest="0")
    manifest = Manifest(
        stage=stage,
        port="encoder",
        kind="Model",
        config={},
        code=code,
        image="",
        files=hash_folder(folder),
    )
    write_manifest(folder, manifest)
    return folder


def convert(checkpoint: Path | None, output: Path, **config: object) -> Path:
    """Run the stage from its own command line."""
    config = {"architecture": "resnet_digits", **config}
    arguments = ["--config", json.dumps(config), "--output.backbone", str(output)]
    if checkpoint is not None:
        arguments += ["--input.checkpoint", str(checkpoint)]
    execute(STAGE, STAGE.parse(arguments))
    return output


@torch.inference_mode()
def features(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """The feature maps of a backbone in evaluation mode."""
    return feature_maps(backbone.eval(), images)
