"""A backbone as an ONNX file: res2 to res5, and the pooled features."""

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from components.vision.backbones import STAGES, Backbone, feature_maps, load_backbone

IN_CODE_DIGEST = False  # what is trained is there already

OPSET = 17
PROBE = (1, 3, 64, 64)  # height and width stay free


class _Maps(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = feature_maps(self.backbone, images)
        return (*maps.values(), self.backbone.avgpool(maps["res5"]).flatten(1))


def write_onnx(folder: Path, path: Path) -> None:
    """Write a converted backbone in evaluation mode.

    Args:
        folder: The artifact of the `convert` stage.
        path: Of the file. Its input is `images`, (N, 3, H, W), normalised RGB; N, H and W are free.

    Raises:
        ModuleNotFoundError: if there is no onnx, of which torch would say so at the end only.
    """
    importlib.import_module("onnx")
    free = {0: "N", 2: "H", 3: "W"}
    names = [*STAGES, "pooled"]
    torch.onnx.export(
        _Maps(load_backbone(folder).eval()),
        (torch.zeros(PROBE),),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=names,
        dynamic_axes={"images": free, **dict.fromkeys(STAGES, free), "pooled": {0: "N"}},
    )
