"""What a backbone is called and wants of its images, for configs, which cannot see torch."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from components.core.config import Config

SHOWN_FAULTS = 8  # tensor names in an error, for each kind of fault

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
    """What it was trained by: `moco`, `supervised`, `random`, `unknown`, or a recipe's row."""


class _ResNet(NamedTuple):
    """Numbers that the shapes of a ResNet follow from."""

    stem: int
    kernel: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    expansion: int


_RESNETS: Mapping[Architecture, _ResNet] = {
    "resnet50": _ResNet(64, 7, (3, 4, 6, 3), (64, 128, 256, 512), expansion=4),
    "resnet_digits": _ResNet(16, 3, (1, 1, 1, 1), (16, 32, 64, 128), expansion=1),
}


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a backbone by torchvision's name, without torch.

    A plan is checked against a checkpoint's header by them.
    """
    resnet = _RESNETS[architecture]
    shapes: dict[str, tuple[int, ...]] = {}

    def add(convolution: str, norm: str, channels: int, inputs: int, kernel: int) -> None:
        shapes[f"{convolution}.weight"] = (channels, inputs, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (channels,)
        shapes[f"{norm}.num_batches_tracked"] = ()

    add("conv1", "bn1", resnet.stem, 3, resnet.kernel)
    inputs = resnet.stem
    for layer, (blocks, width) in enumerate(
        zip(resnet.blocks, resnet.widths, strict=True), start=1
    ):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            outputs = width * resnet.expansion
            kernels = (3, 3) if resnet.expansion == 1 else (1, 3, 1)
            channels = (inputs, *[width] * (len(kernels) - 1), outputs)
            for number, kernel in enumerate(kernels, start=1):
                names = f"{at}.conv{number}", f"{at}.bn{number}"
                add(*names, channels[number], channels[number - 1], kernel)
            if inputs != outputs:
                add(f"{at}.downsample.0", f"{at}.downsample.1", outputs, inputs, kernel=1)
            inputs = outputs
    return shapes


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
