"""detectron2's ResNet as far as conversion needs it: how its tensors are called, and its features.

The features are stated here on their own, by detectron2's names and its arithmetic, so that
comparing them with the source's proves the names, in an image without detectron2 too.
"""

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from components.vision.architectures import RESNETS, Architecture

EPSILON = 1e-5  # of every norm
_STAGE = re.compile(r"layer(\d)\.(\d+)\.(.+)")
_PART = (
    (re.compile(r"downsample\.0\.(.+)"), r"shortcut.\1"),
    (re.compile(r"downsample\.1\.(.+)"), r"shortcut.norm.\1"),
    (re.compile(r"bn(\d)\.(.+)"), r"conv\1.norm.\2"),
)


def detectron2_name(name: str) -> str | None:
    """Translate torchvision's name of a ResNet's tensor; None for what detectron2 does not keep.

    Layers 1 to 4 are res2 to res5, what comes before is the stem, and a norm belongs to its
    convolution. torch counts batches in a norm; nothing reads the count.
    """
    if name.endswith("num_batches_tracked"):
        return None
    stage = _STAGE.fullmatch(name)
    if stage is None:
        return f"stem.{_part(name)}"
    number, block, part = stage.groups()
    return f"res{int(number) + 1}.{block}.{_part(part)}"


def detectron2_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a torchvision ResNet's tensors."""
    named = ((detectron2_name(name), tensor) for name, tensor in tensors.items())
    return {name: tensor for name, tensor in named if name is not None}


def detectron2_features(
    tensors: Mapping[str, Tensor], images: Tensor, architecture: Architecture
) -> dict[str, Tensor]:
    """Return res2 to res5 as detectron2 computes them with frozen norms, STRIDE_IN_1X1 false.

    Args:
        tensors: By detectron2's names; any number of blocks, basic or bottleneck, in groups or not.
        images: Normalised RGB, (N, 3, H, W).
        architecture: Says whether the stem pools.
    """
    x = F.relu(_convolve(tensors, "stem.conv1", images, stride=2))
    if RESNETS[architecture].pooled:
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    features = {}
    for stage in ("res2", "res3", "res4", "res5"):
        block = 0
        while f"{stage}.{block}.conv1.weight" in tensors:
            stride = 2 if block == 0 and stage != "res2" else 1
            x = _block(tensors, f"{stage}.{block}", x, stride)
            block += 1
        features[stage] = x
    return features


def _block(tensors: Mapping[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    bottleneck = f"{name}.conv3.weight" in tensors
    out = F.relu(_convolve(tensors, f"{name}.conv1", x, stride=1 if bottleneck else stride))
    out = _convolve(tensors, f"{name}.conv2", out, stride=stride if bottleneck else 1)
    if bottleneck:
        out = _convolve(tensors, f"{name}.conv3", F.relu(out), stride=1)
    if f"{name}.shortcut.weight" in tensors:
        x = _convolve(tensors, f"{name}.shortcut", x, stride=stride)
    return F.relu(out + x)


def _convolve(tensors: Mapping[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    """Convolve and normalise with kept statistics, as detectron2's FrozenBatchNorm2d does."""
    weight = tensors[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
    return F.batch_norm(
        x,
        tensors[f"{name}.norm.running_mean"],
        tensors[f"{name}.norm.running_var"],
        tensors[f"{name}.norm.weight"],
        tensors[f"{name}.norm.bias"],
        training=False,
        eps=EPSILON,
    )


def _part(name: str) -> str:
    for pattern, replacement in _PART:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    return name
