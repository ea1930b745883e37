"""The maps that a detector reads: res4, dilated res5, or a pyramid."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from components.detection.model import ModelConfig
from components.vision.backbones import STAGES, Backbone, dilate_res5, stem


class FrozenNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """Batch norm that stays as it was converted; nothing of it is learned or synchronised.

    torchvision's own would turn maps of mixed precision back into single precision.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(self, name).copy_(getattr(norm, name).detach())

    def forward(self, maps: Tensor) -> Tensor:
        """Scale and shift each channel of (N, C, H, W)."""
        scale: Tensor = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift: Tensor = self.bias - self.running_mean * scale
        scale, shift = (values.to(maps.dtype).view(-1, 1, 1) for values in (scale, shift))
        return maps * scale + shift


class Body(nn.Module):
    """The first stages of a backbone, under its names; returns their maps, `res2` onwards."""

    def __init__(self, backbone: Backbone, stages: int) -> None:
        super().__init__()
        self.conv1 = backbone.conv1
        self.bn1 = backbone.bn1
        self.relu = backbone.relu
        self.maxpool = backbone.maxpool
        self.names = tuple(f"layer{number}" for number in range(1, stages + 1))
        for name in self.names:
            self.add_module(name, getattr(backbone, name))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the stages' outputs for normalised RGB, (N, 3, H, W)."""
        maps: dict[str, Tensor] = {}
        x = stem(self, images)
        for stage, name in zip(STAGES, self.names, strict=False):
            x = self.get_submodule(name)(x)
            maps[stage] = x
        return maps


class Last(nn.Module):
    """Keeps the last map alone, after a convolution if there is one."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one map under its name."""
        name = list(maps)[-1]
        return {name: self.convolution(maps[name])}


class Features(nn.Module):
    """Backbone and neck.

    Attributes:
        strides: Pixels between neighbours, of each map.
        channels: Of every map.
        for_regions: How many of the maps regions are cut from, the finest first.
    """

    def __init__(
        self, body: Body, neck: nn.Module, strides: tuple[int, ...], channels: int, for_regions: int
    ) -> None:
        super().__init__()
        self.body = body
        self.neck = neck
        self.strides = strides
        self.channels = channels
        self.for_regions = for_regions

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return maps by name, the finest first, in single precision, as boxes need it."""
        maps: dict[str, Tensor] = self.neck(self.body(images))
        return {name: level_map.float() for name, level_map in maps.items()}


def build_features(model: ModelConfig, backbone: Backbone) -> tuple[Features, nn.Module | None]:
    """Turn a converted backbone into what heads read.

    Returns:
        The maps' module, and for C4 conv5, which its regions go through.
    """
    if model.backbone_norm == "frozen":
        freeze_norms(backbone)
    resnet = backbone.resnet
    strides = tuple(resnet.first_stride << stage for stage in range(4))
    norm = nn.BatchNorm2d if model.neck_norm else None
    width = model.neck_channels
    if model.kind == "c4":
        neck: nn.Module = Last(nn.Identity())
        return Features(
            Body(backbone, 3), neck, strides[2:3], resnet.channels[2], 1
        ), backbone.layer4
    if model.kind == "dc5":
        dilate_res5(backbone.layer4)
        # The appendix names batch norm after this convolution and no non-linearity.
        reduced = Conv2dNormActivation(
            resnet.channels[3], width, norm_layer=norm, activation_layer=None
        )
        nn.init.kaiming_normal_(reduced[0].weight, mode="fan_out", nonlinearity="relu")
        neck = Last(reduced)
        return Features(Body(backbone, 4), neck, strides[2:3], width, 1), None
    neck = FeaturePyramidNetwork(
        list(resnet.channels),
        width,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=norm,
    )
    features = Features(Body(backbone, 4), neck, (*strides, strides[-1] * 2), width, 4)
    return features, None


def freeze_norms(module: nn.Module) -> None:
    """Put norms that never change in the place of all batch norms."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            module.add_module(name, FrozenNorm(child))
        else:
            freeze_norms(child)
