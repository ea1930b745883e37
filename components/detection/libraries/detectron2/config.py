"""From our config of a detector to detectron2's: a `CfgNode` that says all of the model."""

from detectron2.config import CfgNode, get_cfg

from components.core.errors import ConfigError
from components.detection.interface import Head
from components.detection.model import ModelConfig
from components.vision.architectures import RESNETS, Architecture, BackboneCard

BACKBONES = {
    ("theirs", "c4"): "build_resnet_backbone",
    ("theirs", "fpn"): "build_resnet_fpn_backbone",
    ("ours", "c4"): "build_basic_block_backbone",
    ("ours", "fpn"): "build_basic_block_fpn_backbone",
}
"""Names in detectron2's registry, by who builds the ResNet; ours are in `backbones`."""
RES5_HEADS = {
    "before_pooling": "Res5ROIHeadsExtraNorm",
    "after_pooling": "Res5ROIHeadsPooledNorm",
}
"""C4's heads with a batch norm, in `heads`."""


def to_cfg(model: ModelConfig, head: Head, card: BackboneCard) -> CfgNode:
    """Return detectron2's config of a model; its solver and its data sets are not looked at.

    Args:
        model: What the detector is.
        head: What the data asks for.
        card: How the backbone wants to be used.

    Raises:
        ConfigError: if a part cannot be built so.
    """
    cfg = get_cfg()
    _set_input(cfg, card)
    _set_backbone(cfg, model, card.architecture)
    _set_proposals(cfg, model)
    _set_heads(cfg, model, head, card.architecture)
    if model.masks:
        _set_masks(cfg, model)
    if model.keypoints:
        _set_keypoints(cfg, model, head)
    if model.surface != "none":
        _set_surface(cfg, model, card.architecture)
    return cfg


def built_here(cfg: CfgNode) -> Architecture | None:
    """Return the architecture of a backbone that detectron2's config cannot say."""
    architecture: Architecture | None = cfg.MODEL.get("ARCHITECTURE")
    return architecture


def _set_input(cfg: CfgNode, card: BackboneCard) -> None:
    cfg.INPUT.FORMAT = card.channel_order
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.MODEL.PIXEL_MEAN = list(card.mean)
    cfg.MODEL.PIXEL_STD = list(card.std)
    cfg.MODEL.DEVICE = "cpu"  # the training loop moves it


def _set_backbone(cfg: CfgNode, model: ModelConfig, architecture: Architecture) -> None:
    made_of = RESNETS[architecture]
    builder = "theirs" if made_of.bottleneck else "ours"
    cfg.MODEL.BACKBONE.NAME = (
        "build_dilated_c5_backbone" if model.kind == "dc5" else BACKBONES[builder, model.kind]
    )
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    resnet = cfg.MODEL.RESNETS
    if made_of.bottleneck:
        resnet.DEPTH = 3 * sum(made_of.blocks) + 2
        resnet.NUM_GROUPS = made_of.groups
        resnet.WIDTH_PER_GROUP = made_of.widths[0] // made_of.groups
        resnet.STEM_OUT_CHANNELS = made_of.stem
        resnet.RES2_OUT_CHANNELS = made_of.channels[0]
    else:
        cfg.MODEL.ARCHITECTURE = architecture
    resnet.NORM = "BN" if model.backbone_norm == "tuned" else "FrozenBN"
    resnet.STRIDE_IN_1X1 = False
    norm = "BN" if model.neck_norm else ""
    if model.kind == "c4":
        resnet.OUT_FEATURES = cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    elif model.kind == "dc5":
        resnet.OUT_FEATURES = ["res5"]
        resnet.RES5_DILATION = 2
        cfg.MODEL.DILATED_C5 = CfgNode({"OUT_CHANNELS": model.neck_channels, "NORM": norm})
        cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["dilated_c5"]
    else:
        resnet.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.FPN.OUT_CHANNELS = model.neck_channels
        cfg.MODEL.FPN.NORM = norm
        first = made_of.first_stride.bit_length() - 1
        levels = [f"p{level}" for level in range(first, first + 5)]
        cfg.MODEL.RPN.IN_FEATURES = levels
        cfg.MODEL.ROI_HEADS.IN_FEATURES = levels[:4]


def _set_proposals(cfg: CfgNode, model: ModelConfig) -> None:
    rpn, anchors = model.rpn, cfg.MODEL.ANCHOR_GENERATOR
    sizes = list(rpn.anchor_sizes)
    anchors.SIZES = [[size] for size in sizes] if model.kind == "fpn" else [sizes]
    anchors.ASPECT_RATIOS = [list(rpn.anchor_ratios)]
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = rpn.batch
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = rpn.proposals_before
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = rpn.proposals
    cfg.MODEL.RPN.NMS_THRESH = rpn.nms


def _set_heads(cfg: CfgNode, model: ModelConfig, head: Head, architecture: Architecture) -> None:
    heads, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    heads.NUM_CLASSES = head.classes
    heads.BATCH_SIZE_PER_IMAGE = model.rois
    heads.POSITIVE_FRACTION = model.positive
    heads.SCORE_THRESH_TEST = model.score_threshold
    heads.NMS_THRESH_TEST = model.nms
    cfg.TEST.DETECTIONS_PER_IMAGE = model.detections
    box.POOLER_RESOLUTION = model.pooling
    box.POOLER_SAMPLING_RATIO = model.sampling
    if model.kind == "c4":
        theirs = RESNETS[architecture].bottleneck and model.head_norm == "none"
        heads.NAME = (
            "Res5ROIHeads" if theirs else RES5_HEADS.get(model.head_norm, "ConvertedRes5ROIHeads")
        )
    else:
        heads.NAME = "StandardROIHeads"
        box.NAME = "FastRCNNConvFCHead"
        box.NUM_FC = 2
        box.FC_DIM = model.head_width


def _set_masks(cfg: CfgNode, model: ModelConfig) -> None:
    mask = cfg.MODEL.ROI_MASK_HEAD
    cfg.MODEL.MASK_ON = True
    mask.CONV_DIM = model.mask_channels
    mask.POOLER_SAMPLING_RATIO = model.sampling
    if model.kind != "c4":  # its masks are read from conv5, as its boxes are
        mask.NUM_CONV = 4
        mask.POOLER_RESOLUTION = 2 * model.pooling


def _set_keypoints(cfg: CfgNode, model: ModelConfig, head: Head) -> None:
    if not head.keypoints:
        raise ConfigError("model.keypoints is true, and the data set has no keypoints")
    keypoint = cfg.MODEL.ROI_KEYPOINT_HEAD
    cfg.MODEL.KEYPOINT_ON = True
    keypoint.NAME = "ContiguousKeypointHead"
    keypoint.NUM_KEYPOINTS = head.keypoints
    keypoint.CONV_DIMS = [model.keypoint_channels] * 8
    keypoint.POOLER_RESOLUTION = 2 * model.pooling
    keypoint.POOLER_SAMPLING_RATIO = model.sampling
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.5  # keypoint AP is lower with a plain L1 loss


def _set_surface(cfg: CfgNode, model: ModelConfig, architecture: Architecture) -> None:
    """Add DensePose's head: the released `s1x_legacy`, or `DL_s1x` (A.3)."""
    from densepose import add_densepose_head_config

    add_densepose_head_config(cfg)
    surface = cfg.MODEL.ROI_DENSEPOSE_HEAD
    cfg.MODEL.ROI_HEADS.NAME = "SurfaceROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = surface.POOLER_TYPE = "ROIAlign"
    surface.POOLER_SAMPLING_RATIO = model.sampling
    surface.CONV_HEAD_DIM = model.surface_channels
    if model.surface == "legacy":
        surface.NAME = "DensePoseV1ConvXHead"
        surface.NUM_COARSE_SEGM_CHANNELS = 15
        surface.POOLER_RESOLUTION = 2 * model.pooling
        surface.HEATMAP_SIZE = 8 * model.pooling
        surface.INDEX_WEIGHTS = 2.0
        surface.PART_WEIGHTS = 0.3
        surface.POINT_REGRESSION_WEIGHTS = 0.1
        surface.DECODER_ON = False
        return
    surface.NAME = "DensePoseDeepLabHead"
    surface.NUM_COARSE_SEGM_CHANNELS = 2
    surface.POOLER_RESOLUTION = 4 * model.pooling
    surface.HEATMAP_SIZE = 16 * model.pooling
    # The decoder hands the head what the head takes a level of the pyramid to have.
    surface.DECODER_NUM_CLASSES = surface.DECODER_CONV_DIMS = model.neck_channels
    surface.DECODER_COMMON_STRIDE = RESNETS[architecture].first_stride
