"""What detectron2 lacks of the paper's backbones, and how the converted weights get in."""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, ResNet, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, CNNBlockBase
from fvcore.nn import weight_init
from torch import Tensor, nn

from components.detection.libraries.detectron2.config import built_here
from components.vision.architectures import DETECTRON2_WEIGHTS, RESNETS, Architecture
from components.vision.backbones import load_weights, read_tensors


class DilatedC5(Backbone):  # type: ignore[misc]
    """Dilated conv5, then a 3×3 convolution to fewer channels with batch norm (A.1, i).

    The appendix names no non-linearity after it, so there is none.
    """

    def __init__(self, bottom_up: ResNet, channels: int, norm: str) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        shape = bottom_up.output_shape()["res5"]
        self.reduce = Conv2d(
            shape.channels,
            channels,
            kernel_size=3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm, channels),
        )
        weight_init.c2_msra_fill(self.reduce)
        self._shape = ShapeSpec(channels=channels, stride=shape.stride)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the one map that proposals and boxes are read from."""
        return {"dilated_c5": self.reduce(self.bottom_up(images)["res5"])}

    def output_shape(self) -> dict[str, Any]:
        """Return channels and stride of the map."""
        return {"dilated_c5": self._shape}


class DigitsStem(CNNBlockBase):  # type: ignore[misc]
    """The miniature's stem: one 3×3 convolution of stride 2, and no pooling."""

    def __init__(self, in_channels: int, channels: int, norm: str) -> None:
        super().__init__(in_channels, channels, stride=2)
        self.conv1 = Conv2d(
            in_channels,
            channels,
            kernel_size=3,
            stride=2,
            padding=1,
            bias=False,
            norm=get_norm(norm, channels),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return features of half the resolution."""
        return F.relu_(self.conv1(images))


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_basic_block_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet of basic blocks, which detectron2 has no dilated conv5 and no C4 heads of."""
    resnet = RESNETS[cfg.MODEL.ARCHITECTURE]
    stem_of = BasicStem if resnet.pooled else DigitsStem
    stem = stem_of(input_shape.channels, resnet.stem, cfg.MODEL.RESNETS.NORM)
    stages = [basic_blocks(cfg, stage) for stage in range(len(resnet.blocks))]
    return ResNet(stem, stages, out_features=cfg.MODEL.RESNETS.OUT_FEATURES)


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_basic_block_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a pyramid on a ResNet of basic blocks."""
    bottom_up = build_basic_block_backbone(cfg, input_shape)
    pool = LastLevelMaxPool()
    pool.in_feature = cfg.MODEL.ROI_HEADS.IN_FEATURES[-1]  # p4 where no pooling follows the stem
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=pool,
    )


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_dilated_c5_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> DilatedC5:
    """Build dilated conv5 with the paper's extra convolution."""
    build = build_basic_block_backbone if built_here(cfg) else build_resnet_backbone
    neck = cfg.MODEL.DILATED_C5
    return DilatedC5(build(cfg, input_shape), neck.OUT_CHANNELS, neck.NORM)


def basic_blocks(cfg: CfgNode, stage: int) -> list[BasicBlock]:
    """Build the blocks of a stage, 0 for res2 to 3 for res5."""
    resnet = RESNETS[cfg.MODEL.ARCHITECTURE]
    last = stage == len(resnet.blocks) - 1
    dilation = cfg.MODEL.RESNETS.RES5_DILATION if last else 1
    inputs = resnet.channels[stage - 1] if stage else resnet.stem
    blocks = []
    for number in range(resnet.blocks[stage]):
        block = BasicBlock(
            inputs,
            resnet.channels[stage],
            stride=2 if stage and not number and dilation == 1 else 1,
            norm=cfg.MODEL.RESNETS.NORM,
        )
        for conv in (block.conv1, block.conv2):
            conv.dilation = conv.padding = (dilation, dilation)
        blocks.append(block)
        inputs = resnet.channels[stage]
    return blocks


def load_converted(detector: nn.Module, folder: Path, architecture: Architecture) -> None:
    """Put the converted weights into a detector, wherever it has them.

    Args:
        detector: A GeneralizedRCNN; of the heads, C4's have conv5.
        folder: The artifact of `convert`.
        architecture: What its card says, and the detector was built for.

    Raises:
        DataError: if the weights are damaged or do not fit.
    """
    trunk: Any = detector.backbone
    heads: Any = detector.roi_heads
    whole: Any = nn.Module()
    whole.architecture = architecture
    for name, part in getattr(trunk, "bottom_up", trunk).named_children():
        whole.add_module(name, part)
    if hasattr(heads, "res5"):
        blocks = [block for block in heads.res5 if isinstance(block, CNNBlockBase)]
        whole.add_module("res5", nn.Sequential(*blocks))
    # torch's norms count batches, which nothing reads, and which no file of detectron2 keeps.
    counts = {
        name: count
        for name, count in whole.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    path = folder / DETECTRON2_WEIGHTS
    load_weights(whole, counts | read_tensors(path), str(path))
