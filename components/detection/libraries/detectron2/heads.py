"""What detectron2's heads lack: batch norm after conv5 (A.1), the miniature's conv5, any memory."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    FastRCNNOutputLayers,
)
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead, Res5ROIHeads
from torch import Tensor, nn

from components.detection.libraries.detectron2.backbones import basic_blocks
from components.detection.libraries.detectron2.config import built_here


@ROI_HEADS_REGISTRY.register()
class ConvertedRes5ROIHeads(Res5ROIHeads):  # type: ignore[misc]
    """conv5 as the box head, of basic blocks too."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        if built_here(cfg):
            res5 = basic_blocks(cfg, 3)
            return nn.Sequential(*res5), res5[-1].out_channels
        blocks, channels = super()._build_res5_block(cfg)
        return blocks, channels


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(ConvertedRes5ROIHeads):
    """Batch norm between conv5 and its pooling, as the authors released it; masks see it too."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        blocks, channels = super()._build_res5_block(cfg)
        blocks.add_module("norm", nn.BatchNorm2d(channels))
        return blocks, channels


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsPooledNorm(ConvertedRes5ROIHeads):
    """Batch norm after the pooling, as the words of A.1 have it."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the parts, the box predictor with a norm before it."""
        parts: dict[str, Any] = super().from_config(cfg, input_shape)
        channels = parts["res5"][-1].out_channels
        parts["box_predictor"] = NormedOutputLayers(cfg, ShapeSpec(channels=channels))
        return parts


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class ContiguousKeypointHead(KRCNNConvDeconvUpsampleHead):  # type: ignore[misc]
    """detectron2's keypoint head, whose loss takes contiguous maps only, on maps of any memory."""

    def layers(self, x: Tensor) -> Tensor:
        """Return a heat map of each keypoint, (R, K, h, w)."""
        maps: Tensor = super().layers(x)
        return maps.contiguous()


class NormedOutputLayers(FastRCNNOutputLayers):  # type: ignore[misc]
    """Classes and boxes from pooled features that are normalised first."""

    @configurable  # type: ignore[untyped-decorator]
    def __init__(self, input_shape: ShapeSpec, **rest: Any) -> None:
        super().__init__(input_shape, **rest)
        # Of maps, so that the training loop finds it among those that it synchronises.
        self.norm = nn.BatchNorm2d(input_shape.channels)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Return what the config says of the predictor."""
        return dict(super().from_config(cfg, input_shape))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores and box deltas of features, (R, C)."""
        scores, deltas = super().forward(self.norm(features[:, :, None, None]).flatten(1))
        return scores, deltas
