"""What a backbone is called and wants of its images, for configs, which cannot see torch."""

from typing import Literal

from components.core.config import Config

Architecture = Literal["resnet50", "resnet_digits"]
"""`resnet50` is the paper's; `resnet_digits` is the miniature's, for images of about 48 pixels."""

MEAN = (123.675, 116.28, 103.53)
"""Mean of ImageNet's pixels, RGB, on the scale 0 to 255."""
STD = (58.395, 57.12, 57.375)
"""Standard deviation of ImageNet's pixels, RGB, on the scale 0 to 255."""

CARD = "backbone.json"
TORCHVISION_WEIGHTS = "backbone.safetensors"
DETECTRON2_WEIGHTS = "detectron2.safetensors"

MODEL_CARD = "model.json"
"""Beside the weights of a stage that trains an encoder; says at least its architecture."""
ENCODER_WEIGHTS = "encoder.safetensors"
HEAD_WEIGHTS = "head.safetensors"
"""A trained encoder, torchvision's names, without its head."""


class BackboneCard(Config):
    """The content of `backbone.json`: how a converted backbone wants to be used.

    Released detection configs mix RGB and BGR; here the order is always written down and is RGB.
    """

    architecture: Architecture
    channel_order: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = MEAN
    """Subtracted from pixels of 0 to 255, in channel order."""
    std: tuple[float, float, float] = STD
    """Divides them afterwards."""
    stride_in_1x1: Literal[False] = False
    """Where a bottleneck strides: in its 3×3 convolution, as torchvision's do."""
    origin: str
    """What initialised it: `moco`, `supervised`, `random`, or the row that a recipe names."""
