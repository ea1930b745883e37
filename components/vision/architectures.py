"""What a backbone is called and wants of its images, for configs, which cannot see torch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from components.core.config import Config

SHOWN_FAULTS = 8  # tensor names in an error, for each kind of fault

Architecture = Literal[
    "resnet50",
    "resnet18",
    "resnet34",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext50_32x8d",
    "resnet50_w2",
    "resnet50_w4",
    "wide_resnet50_2",
    "resnet_digits",
]
"""`resnet50` is the paper's, `resnext50_32x8d`, `resnet50_w2` and `resnet50_w4` are its Table 1's
too; `resnet_digits` is the miniature's, for images of about 48 pixels."""

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
    """What it was trained by: `moco`, `supervised`, `random`, `unknown`, or a recipe's row."""


@dataclass(frozen=True)
class ResNet:
    """What a ResNet is: all that its layers, shapes and strides follow from.

    Attributes:
        name: What people call it.
        blocks: How many each of the four stages has, res2 to res5.
        bottleneck: Whether a block has three convolutions, 1×1, 3×3 and 1×1, or two of 3×3.
        stem: Channels of the first convolution.
        kernel: Its side; it strides by 2.
        pooled: Whether a maximum pooling of stride 2 follows it.
        planes: Channels that res2 is made of; each later stage has twice as many. A bottleneck
            puts out four times as many.
        groups: Of a bottleneck's 3×3 convolution (ResNeXt's cardinality).
        group_width: Channels of each group, where `planes` are 64.
    """

    name: str
    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    stem: int = 64
    kernel: int = 7
    pooled: bool = True
    planes: int = 64
    groups: int = 1
    group_width: int = 64

    @property
    def first_stride(self) -> int:
        """Pixels between neighbours on res2; each later stage doubles it."""
        return 4 if self.pooled else 2

    @property
    def stage_planes(self) -> tuple[int, ...]:
        """`planes` of each stage."""
        return tuple(self.planes << stage for stage in range(len(self.blocks)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's 3×3 convolutions."""
        return tuple(
            self.groups * (planes * self.group_width // 64) for planes in self.stage_planes
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that each stage puts out."""
        return tuple(planes * (4 if self.bottleneck else 1) for planes in self.stage_planes)

    @property
    def parameters(self) -> int:
        """Numbers that are learned, without a classifier."""
        return sum(math.prod(c.shape) + 2 * c.shape[0] for c in self.convolutions())

    @property
    def multiplications(self) -> float:
        """Of the convolutions, for each pixel of an image."""
        return sum(math.prod(c.shape) / c.stride**2 for c in self.convolutions())

    def convolutions(self) -> Iterator["Convolution"]:
        """Yield the convolutions, each of which a batch norm follows, in torchvision's order."""
        stride = 2
        yield Convolution("conv1", "bn1", (self.stem, 3, self.kernel, self.kernel), stride)
        inputs, stride = self.stem, self.first_stride
        for stage, blocks in enumerate(self.blocks):
            width, outputs = self.widths[stage], self.channels[stage]
            for block in range(blocks):
                at = f"layer{stage + 1}.{block}"
                before = stride
                if stage and not block:
                    stride *= 2
                shapes = (
                    (
                        (width, inputs, 1, 1),
                        (width, width // self.groups, 3, 3),
                        (outputs, width, 1, 1),
                    )
                    if self.bottleneck
                    else ((width, inputs, 3, 3), (outputs, width, 3, 3))
                )
                for number, shape in enumerate(shapes, start=1):
                    first = self.bottleneck and number == 1  # strides are in the 3×3 convolution
                    names = f"{at}.conv{number}", f"{at}.bn{number}"
                    yield Convolution(*names, shape, before if first else stride)
                if inputs != outputs or before != stride:
                    names = f"{at}.downsample.0", f"{at}.downsample.1"
                    yield Convolution(*names, (outputs, inputs, 1, 1), stride)
                inputs = outputs


class Convolution(NamedTuple):
    """A convolution of a ResNet and the batch norm after it.

    Attributes:
        name: Torchvision's.
        norm: The batch norm's.
        shape: Of its weights: outputs, inputs of a group, height and width.
        stride: Pixels of the image between neighbours of its output.
    """

    name: str
    norm: str
    shape: tuple[int, int, int, int]
    stride: int


RESNETS: Mapping[Architecture, ResNet] = {
    "resnet18": ResNet("ResNet-18", (2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNet("ResNet-34", (3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNet("ResNet-50", (3, 4, 6, 3)),
    "resnet101": ResNet("ResNet-101", (3, 4, 23, 3)),
    "resnet152": ResNet("ResNet-152", (3, 8, 36, 3)),
    "resnext50_32x4d": ResNet("ResNeXt-50 32×4d", (3, 4, 6, 3), groups=32, group_width=4),
    "resnext50_32x8d": ResNet("ResNeXt-50 32×8d", (3, 4, 6, 3), groups=32, group_width=8),
    "resnet50_w2": ResNet("ResNet-50, 2× wide", (3, 4, 6, 3), stem=128, planes=128),
    "resnet50_w4": ResNet("ResNet-50, 4× wide", (3, 4, 6, 3), stem=256, planes=256),
    "wide_resnet50_2": ResNet("Wide ResNet-50-2", (3, 4, 6, 3), group_width=128),
    "resnet_digits": ResNet(
        "resnet_digits", (1, 1, 1, 1), False, stem=16, kernel=3, pooled=False, planes=16
    ),
}


@lru_cache
def tensor_shapes(architecture: Architecture) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every tensor of a backbone by torchvision's name, without torch.

    A plan is checked against a checkpoint's header by them.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for convolution in RESNETS[architecture].convolutions():
        shapes[f"{convolution.name}.weight"] = convolution.shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{convolution.norm}.{part}"] = convolution.shape[:1]
        shapes[f"{convolution.norm}.num_batches_tracked"] = ()
    return shapes


def relative_cost(architecture: Architecture) -> float:
    """Return how many times a ResNet-50's multiplications an image takes."""
    return RESNETS[architecture].multiplications / RESNETS["resnet50"].multiplications


def misfit(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], what: str
) -> str | None:
    """Say which tensors are missing, unexpected or misshapen; None if all fit.

    Args:
        wanted: Shapes by name.
        given: Likewise.
        what: The model that is wanted.
    """
    faults = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {given[name]} instead of {shape}"
            for name, shape in wanted.items()
            if name in given and given[name] != shape
        ],
    }
    if not any(faults.values()):
        return None
    told = "\n".join(
        f"  {len(names)} {kind}: {', '.join(names[:SHOWN_FAULTS])}"
        + (", ..." if len(names) > SHOWN_FAULTS else "")
        for kind, names in faults.items()
        if names
    )
    return f"does not fit a {what} of {len(wanted)} tensors:\n{told}"
