"""What a detector is, whichever library builds it; no torch here, so that plans can check it."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from components.core.config import Config

Fraction = Annotated[float, Field(ge=0, le=1)]
GROUPS = 32  # of the group norm in DensePose's DeepLab head


class RpnConfig(Config):
    """The region proposal network."""

    anchor_sizes: tuple[PositiveFloat, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of square anchors, pixels; one for each level of an FPN, all on C4's or DC5's map."""
    anchor_ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    batch: PositiveInt = 256
    """Anchors an image that the loss samples."""
    proposals_before: tuple[PositiveInt, PositiveInt] = (2000, 1000)
    """Best proposals that go into non-maximum suppression in training and test; of each level."""
    proposals: tuple[PositiveInt, PositiveInt] = (1000, 1000)
    """Proposals an image that are kept in training and test."""
    nms: Fraction = 0.7
    """Overlap from which the weaker proposal is dropped."""


class ModelConfig(Config):
    """A Faster or Mask R-CNN on a converted backbone. The defaults are Mask R-CNN R50-FPN's.

    Frozen or tuned, no layer of the backbone is excluded from learning (`FREEZE_AT` 0, Sec. 4.2).
    """

    kind: Literal["c4", "dc5", "fpn"] = "fpn"
    """What heads read: res4 with conv5 as the box head, dilated res5 (A.1), or a pyramid (A.8)."""
    backbone_norm: Literal["frozen", "tuned"] = "tuned"
    """Batch norm of the backbone: kept as converted, or trained and synchronised (Sec. 4.2)."""
    neck_norm: bool = True
    """Synchronised batch norm in the pyramid (A.8, A.2), or after DC5's extra convolution (A.1)."""
    head_norm: Literal["none", "before_pooling", "after_pooling"] = "none"
    """C4: batch norm after conv5 in the box head; before the pooling in the released code (A.1)."""
    masks: bool = True
    """A mask head."""
    keypoints: bool = False
    """A keypoint head; the data says of how many keypoints."""
    surface: Literal["none", "legacy", "deeplab"] = "none"
    """A DensePose head: that of the paper's time, or the newer one (A.3)."""
    rpn: RpnConfig = RpnConfig()
    rois: PositiveInt = 512
    """Regions an image that the heads learn from."""
    positive: Fraction = 0.25
    """Share of them that overlap an instance, at most."""
    score_threshold: Fraction = 0.05
    """Detections with lower scores are dropped."""
    nms: Fraction = 0.5
    """Overlap from which the weaker detection of a class is dropped."""
    detections: PositiveInt = 100
    """Detections an image, at most."""
    pooling: PositiveInt = 7
    """Side of a region's features; 14 for C4, whose conv5 halves it."""
    sampling: Annotated[int, Field(ge=0)] = 0
    """Points of a RoIAlign bin along a side; 0 for as many as the region needs."""
    neck_channels: PositiveInt = 256
    """Channels of the pyramid; 512 of DC5's extra convolution."""
    head_width: PositiveInt = 1024
    """Of the two hidden layers of the box head (FPN and DC5)."""
    mask_channels: PositiveInt = 256
    """Of the mask head's convolutions."""
    keypoint_channels: PositiveInt = 512
    """Of the keypoint head's convolutions."""
    surface_channels: PositiveInt = 512
    """Of the DensePose head's convolutions."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.kind == "fpn" and len(self.rpn.anchor_sizes) != 5:
            raise ValueError(
                f"rpn.anchor_sizes: a pyramid has 5 levels, not {len(self.rpn.anchor_sizes)}"
            )
        if self.head_norm != "none" and self.kind != "c4":
            raise ValueError(f"head_norm: only c4 has conv5 as its box head, not {self.kind}")
        if (self.keypoints or self.surface != "none") and self.kind != "fpn":
            raise ValueError(
                f"keypoints and surfaces are read from a pyramid, not from {self.kind}"
            )
        if self.surface == "deeplab":
            # The pyramid's are pooled to one value a channel, and a group of one has no norm.
            for name, least in (("neck_channels", 2 * GROUPS), ("surface_channels", GROUPS)):
                channels = getattr(self, name)
                if channels % GROUPS or channels < least:
                    raise ValueError(
                        f"{name} is {channels}; surface deeplab normalises in {GROUPS} groups, so "
                        f"take a multiple of {GROUPS} from {least}"
                    )
        return self
