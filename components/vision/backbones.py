"""The ResNets that are pre-trained, converted and fine-tuned, without a classification head."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from components.core.errors import DataError
from components.vision.architectures import (
    CARD,
    ENCODER_WEIGHTS,
    HEAD_WEIGHTS,
    MODEL_CARD,
    RESNETS,
    TORCHVISION_WEIGHTS,
    Architecture,
    BackboneCard,
    ResNet,
    misfit,
)
from components.vision.norm import normalise

STAGES = ("res2", "res3", "res4", "res5")


class Backbone(nn.Module):
    """A ResNet up to its global pooling, its parameters named as torchvision names them.

    Attributes:
        architecture: What it is called in configs.
        resnet: What it is made of.
        num_features: Channels of res5, and so of the pooled features.
    """

    def __init__(self, architecture: Architecture, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.architecture = architecture
        self.resnet = RESNETS[architecture]
        self.conv1 = parts["conv1"]
        self.bn1 = parts["bn1"]
        self.relu = parts["relu"]
        self.maxpool = parts["maxpool"]
        self.layer1 = parts["layer1"]
        self.layer2 = parts["layer2"]
        self.layer3 = parts["layer3"]
        self.layer4 = parts["layer4"]
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        fuse_blocks(self)
        self.num_features = self.resnet.channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features, (N, num_features), of normalised images, (N, 3, H, W)."""
        pooled: Tensor = self.avgpool(feature_maps(self, images)["res5"])
        return pooled.flatten(1)


class FusedBasicBlock(BasicBlock):  # type: ignore[misc]
    """torchvision's block of two convolutions; norm, sum and ReLU are one operation."""

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, H, W) to the block's output."""
        x = normalise(self.bn1, self.conv1(maps), relu=True)
        return normalise(self.bn2, self.conv2(x), residual=_shortcut(self, maps), relu=True)


class FusedBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's block of three convolutions; norm, sum and ReLU are one operation."""

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C, H, W) to the block's output."""
        x = normalise(self.bn1, self.conv1(maps), relu=True)
        x = normalise(self.bn2, self.conv2(x), relu=True)
        return normalise(self.bn3, self.conv3(x), residual=_shortcut(self, maps), relu=True)


def _shortcut(block: Any, maps: Tensor) -> Tensor:
    if block.downsample is None:
        return maps
    convolution, norm = block.downsample
    return normalise(norm, convolution(maps))


def fuse_blocks(module: nn.Module) -> None:
    """Let torchvision's blocks in a module compute as one what can be; they keep all they hold."""
    for block in module.modules():
        if type(block) is BasicBlock:
            block.__class__ = FusedBasicBlock
        elif type(block) is Bottleneck:
            block.__class__ = FusedBottleneck


def stem(backbone: Any, images: Tensor) -> Tensor:
    """Return what the first stage reads, of normalised images, (N, 3, H, W)."""
    maps: Tensor = backbone.maxpool(normalise(backbone.bn1, backbone.conv1(images), relu=True))
    return maps


def feature_maps(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of the four stages, `res2` to `res5`.

    They are what a detector reads, and what a conversion must keep. Strides are 4, 8,
    16 and 32; 2, 4, 8 and 16 where no pooling follows the stem, as in `resnet_digits`.

    Args:
        backbone: In evaluation mode, if batch statistics are not wanted.
        images: Normalised RGB, (N, 3, H, W).
    """
    maps: dict[str, Tensor] = {}
    x = stem(backbone, images)
    layers = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    for stage, layer in zip(STAGES, layers, strict=True):
        x = layer(x)
        maps[stage] = x
    return maps


def dilate_res5(layer4: nn.Module) -> None:
    """Let res5 keep the resolution of res4: its 3×3 convolutions at dilation 2, all at stride 1.

    The stride of the output halves. torchvision's `replace_stride_with_dilation` is another
    network: it leaves the first block's 3×3 convolution undilated. Parameters and their names
    stay as they are.
    """
    for layer in layer4.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = layer.padding = (2, 2)


def build_backbone(architecture: Architecture) -> Backbone:
    """Build a backbone, initialised by torchvision's rule from torch's global generator."""
    resnet = RESNETS[architecture]
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(
            3, resnet.stem, resnet.kernel, stride=2, padding=resnet.kernel // 2, bias=False
        ),
        "bn1": nn.BatchNorm2d(resnet.stem),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1) if resnet.pooled else nn.Identity(),
    }
    inputs = resnet.stem
    for stage, outputs in enumerate(resnet.channels):
        blocks = []
        for number in range(resnet.blocks[stage]):
            stride = 2 if stage and not number else 1
            blocks.append(_block(resnet, inputs, stage, stride))
            inputs = outputs
        parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    if resnet.pooled:
        nn.Linear(outputs, 1000)  # torchvision draws its classifier before it initialises the rest
    for part in parts.values():
        _initialise(part)
    return Backbone(architecture, parts)


def random_backbone(architecture: Architecture, seed: int) -> Backbone:
    """Build the backbone that training from scratch starts from; a seed always gives the same.

    torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(architecture)


def load_backbone(folder: Path) -> Backbone:
    """Load the artifact of the `convert` stage.

    Args:
        folder: Holds `backbone.json` and `backbone.safetensors`.

    Raises:
        DataError: if a file is missing or damaged, the channels are not RGB, or any tensor is
            missing, unexpected or of another shape.
    """
    backbone = build_backbone(read_card(folder).architecture)
    load_weights(backbone, read_tensors(folder / TORCHVISION_WEIGHTS), str(folder))
    return backbone


def write_encoder(
    folder: Path, backbone: Backbone, head: nn.Module, card: Mapping[str, JsonValue]
) -> None:
    """Write what a training made of a backbone, for the `convert` stage to read.

    Args:
        folder: Takes `encoder.safetensors`, `head.safetensors` and `model.json`.
        backbone: The trained backbone.
        head: What was trained on top of it.
        card: What else to say of the training, beside the architecture and the channel order.
    """
    for name, module in ((ENCODER_WEIGHTS, backbone), (HEAD_WEIGHTS, head)):
        tensors = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
        save_file(tensors, folder / name)
    card = {"architecture": backbone.architecture, "channel_order": "RGB", **card}
    (folder / MODEL_CARD).write_text(json.dumps(card, indent=1) + "\n", "utf-8")


def read_card(folder: Path) -> BackboneCard:
    """Read `backbone.json`.

    Raises:
        DataError: if it is missing, or says anything that this code would get wrong.
    """
    path = folder / CARD
    try:
        return BackboneCard.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} has no {CARD}, so it is not a converted backbone; "
            "run `python -m components.convert` on the checkpoint and give its output"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} does not describe a backbone that can be used here: {error}\n"
            "Convert the original checkpoint again; images are RGB throughout, "
            "and a BGR backbone would silently see wrong colours"
        ) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        DataError: if it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run the stage that makes it again") from None
    except SafetensorError as error:
        raise DataError(
            f"{path} is not a whole safetensors file ({error}); fetch it again"
        ) from None


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load every tensor of a module, none missing and none left over.

    Raises:
        DataError: naming the missing, unexpected and misshapen tensors, and `where` they are from.
    """
    wanted, given = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for tensors in (module.state_dict(), tensors)
    )
    if fault := misfit(wanted, given, getattr(module, "architecture", type(module).__name__)):
        raise DataError(
            f"{where} {fault}\nNothing was loaded; give a complete checkpoint of this architecture"
        )
    module.load_state_dict(dict(tensors), strict=True)


def _block(resnet: ResNet, inputs: int, stage: int, stride: int) -> Any:
    """Make a block of a stage, 0 to 3; its shortcut is a convolution where shapes differ."""
    planes, outputs = resnet.stage_planes[stage], resnet.channels[stage]
    shortcut = None
    if stride > 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(outputs),
        )
    kind = Bottleneck if resnet.bottleneck else BasicBlock
    return kind(inputs, planes, stride, shortcut, resnet.groups, resnet.group_width)


def _initialise(part: nn.Module) -> None:
    """Apply torchvision's rule for ResNets; batch norm starts as the identity by itself."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
