"""Converted backbones, configs of every kind of detector, and small scenes of rectangles."""

from pathlib import Path

import torch
from torch import Tensor

from components.convert.conversion import write_backbone
from components.detection.interface import Detector, Head
from components.detection.libraries.torchvision import build
from components.detection.model import ModelConfig, RpnConfig
from components.training.learner import Batch
from components.vision.architectures import Architecture
from tests.convert.making import trained_encoder

SMALL = ModelConfig(
    rpn=RpnConfig(
        anchor_sizes=(4.0, 8.0, 16.0, 32.0, 64.0), batch=64, proposals_before=(200, 100),
        proposals=(100, 50),
    ),
    rois=32, neck_channels=32, head_width=64, mask_channels=16, keypoint_channels=16,
    surface_channels=16,
)  # fmt: skip
C4 = SMALL.derive(kind="c4", pooling=14)
HEAD = Head(classes=3, keypoints=4)
KINDS = {
    "fpn": SMALL,
    "fpn_without_norm": SMALL.derive(neck_norm=False),
    "fpn_frozen": SMALL.derive(backbone_norm="frozen"),
    "c4": C4,
    "c4_before_pooling": C4.derive(head_norm="before_pooling", masks=False),
    "c4_after_pooling": C4.derive(head_norm="after_pooling"),
    "dc5": SMALL.derive(kind="dc5", masks=False),
    "dc5_without_norm": SMALL.derive(kind="dc5", neck_norm=False),
    "keypoints": SMALL.derive(keypoints=True, masks=False),
    "legacy": SMALL.derive(surface="legacy", masks=False, sampling=2),
}


def converted(folder: Path, architecture: Architecture = "resnet_digits") -> Path:
    """An artifact of `convert`, no two norms of which are alike."""
    folder.mkdir()
    write_backbone(trained_encoder(architecture), "random", folder)
    return folder


def detector(folder: Path, model: ModelConfig, head: Head = HEAD) -> Detector:
    """A small detector; the same whenever it is built."""
    torch.manual_seed(0)
    return build(model, converted(folder), head)


def scenes(
    counts: tuple[int, ...] = (2, 1, 2, 1), *, side: int = 64, stretch: tuple[float, float] = (1, 1)
) -> Batch:
    """Images of coloured rectangles on grey, their class the colour, the annotations exact.

    A rectangle's lower right quarter is not its mask; its keypoints are its corners; on its
    surface are four parts, a quarter each, u and v rising along x and y.

    Args:
        counts: Rectangles of each image, two at most.
        side: Of the images, the last of which is narrower by an eighth.
        stretch: How much larger the originals are, down and across.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.full((len(counts), 3, side, side), 110, dtype=torch.uint8)
    sizes = torch.tensor([[side, side]] * len(counts))
    sizes[-1, 1] -= side // 8
    images[-1, :, :, sizes[-1, 1] :] = 0
    boxes, labels, masks = [], [], []
    for image, count in enumerate(counts):
        for place in range(count):
            box = _rectangle(generator, side, lower=bool(place))
            left, top, right, bottom = box.tolist()
            label = int(torch.randint(3, (), generator=generator))
            images[image, :, top:bottom, left:right] = 20
            images[image, label, top:bottom, left:right] = 240
            mask = torch.zeros(side, side, dtype=torch.bool)
            mask[top:bottom, left:right] = True
            mask[(top + bottom) // 2 : bottom, (left + right) // 2 : right] = False
            images[image, :, (top + bottom) // 2 : bottom, (left + right) // 2 : right] = 240
            boxes.append(box.float())
            labels.append(label)
            masks.append(mask)
    batch = {
        "images": images,
        "sizes": sizes,
        "originals": (sizes * torch.tensor(stretch)).round().long(),
        "counts": torch.tensor(counts),
        "boxes": torch.stack(boxes) if boxes else torch.zeros(0, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.stack(masks) if masks else torch.zeros(0, side, side, dtype=torch.bool),
    }
    return {**batch, **_corners(batch["boxes"]), **_surfaces(len(boxes))}


def _rectangle(generator: torch.Generator, side: int, *, lower: bool) -> Tensor:
    wide, high = torch.randint(side // 4, side // 2 - 4, (2,), generator=generator).tolist()
    left = int(torch.randint(side - side // 8 - wide, (), generator=generator))
    top = int(torch.randint(side // 2 - high, (), generator=generator)) + lower * side // 2
    return torch.tensor([left, top, left + wide, top + high])


def _corners(boxes: Tensor) -> dict[str, Tensor]:
    """The four corners, half a pixel inside; the last is never visible."""
    left, top, right, bottom = boxes.unbind(1)
    x = torch.stack((left, right, left, right), 1) + torch.tensor([0.5, -0.5, 0.5, -0.5])
    y = torch.stack((top, top, bottom, bottom), 1) + torch.tensor([0.5, 0.5, -0.5, -0.5])
    seen = torch.tensor([2.0, 2.0, 1.0, 0.0]).expand_as(x)
    return {"keypoints": torch.stack((x, y, seen), -1)}


def _surfaces(instances: int) -> dict[str, Tensor]:
    """Parts 1 to 4 in the quarters, coarse and fine alike, and 49 points on them."""
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    parts = (1 + (columns >= 128) + 2 * (rows >= 128)).to(torch.uint8)
    y, x = (one.flatten().float() for one in torch.meshgrid(
        *[torch.linspace(14, 242, 7)] * 2, indexing="ij"))  # fmt: skip
    points = torch.stack((x, y, 1 + (x >= 128) + 2.0 * (y >= 128), x / 256, y / 256), 1)
    return {
        "surfaces": torch.ones(instances, dtype=torch.bool),
        "parts": parts.expand(instances, 256, 256).clone(),
        "points": points.repeat(instances, 1),
        "point_owners": torch.arange(instances).repeat_interleave(len(points)),
    }
