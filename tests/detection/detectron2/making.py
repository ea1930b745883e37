"""Small models and batches; the backbones are real artifacts of `convert`."""

from pathlib import Path

import torch
from torch import Tensor

from components.convert.conversion import write_backbone
from components.detection.interface import Head
from components.detection.model import ModelConfig, RpnConfig
from components.training.learner import Batch
from components.vision.architectures import Architecture
from components.vision.backbones import Backbone
from tests.convert.making import trained_encoder

SMALL = ModelConfig(
    rpn=RpnConfig(
        anchor_sizes=(8, 16, 24, 32, 48),
        batch=64,
        proposals_before=(100, 100),
        proposals=(50, 50),
    ),
    rois=32,
    sampling=2,
    neck_channels=32,
    head_width=64,
    mask_channels=32,
    keypoint_channels=32,
    surface_channels=32,
)
"""Mask R-CNN with a pyramid, for scenes of 64 pixels."""
ONE_MAP = SMALL.rpn.derive(anchor_sizes=(16, 32)).model_dump()
KINDS = {
    "fpn": SMALL,
    "fpn_frozen": SMALL.derive(backbone_norm="frozen", neck_norm=False),
    "c4": SMALL.derive(kind="c4", pooling=14, rpn=ONE_MAP),
    "c4_before": SMALL.derive(kind="c4", pooling=14, rpn=ONE_MAP, head_norm="before_pooling"),
    "c4_after": SMALL.derive(kind="c4", pooling=14, rpn=ONE_MAP, head_norm="after_pooling"),
    "dc5": SMALL.derive(kind="dc5", masks=False, rpn=ONE_MAP),
    "dc5_plain": SMALL.derive(kind="dc5", neck_norm=False, rpn=ONE_MAP),
    "keypoints": SMALL.derive(masks=False, keypoints=True),
    "legacy": SMALL.derive(masks=False, surface="legacy"),
    "deeplab": SMALL.derive(masks=False, surface="deeplab", neck_channels=96),
    "lvis": SMALL.derive(score_threshold=1e-4, detections=300),
}
KEYPOINTS = 3


def head_of(kind: str) -> Head:
    """What the data of a kind asks for."""
    if kind == "lvis":
        return Head(1230)
    return Head(2, KEYPOINTS if KINDS[kind].keypoints else 0)


def converted(folder: Path, architecture: Architecture = "resnet_digits") -> Backbone:
    """Write a backbone's artifact; return it, in evaluation mode."""
    torch.manual_seed(0)
    encoder = trained_encoder(architecture)
    folder.mkdir()
    write_backbone(encoder, "random", folder)
    return encoder


def scenes(boxes: list[list[list[int]]], size: tuple[int, int] = (64, 56), zoom: int = 1) -> Batch:
    """Make a batch with everything that a model may learn, from the boxes of each image.

    Every instance is a rectangle, of the class 0 if it is red and 1 if it is green, brighter to
    its right; its left half is its mask. Its keypoints are two corners and the centre, its
    surface is the part 1 at the left and the part 2 at the right with u and v across it.

    Args:
        boxes: Left, top, right, bottom.
        size: Height and width of the images; they are padded to 64.
        zoom: How much larger the image files are.
    """
    height, width = size
    count = len(boxes)
    images = torch.zeros(count, 3, 64, 64, dtype=torch.uint8)
    images[:, :, :height, :width] = 60
    flat = [(image, *box) for image, group in enumerate(boxes) for box in group]
    labels = torch.tensor([index % 2 for index in range(len(flat))], dtype=torch.int64)
    masks = torch.zeros(len(flat), 64, 64, dtype=torch.bool)
    keypoints = torch.zeros(len(flat), KEYPOINTS, 3)
    for index, (image, left, top, right, bottom) in enumerate(flat):
        shade = torch.linspace(120, 255, right - left).to(torch.uint8)
        images[image, labels[index], top:bottom, left:right] = shade
        masks[index, top:bottom, left : (left + right) // 2] = True
        keypoints[index] = torch.tensor(
            [
                (left + 1, top + 1, 2),
                ((left + right) / 2, (top + bottom) / 2, 2),
                (right - 1, bottom - 1, 1),
            ]
        )
    points = torch.cat([_points() for _ in flat]) if flat else torch.zeros(0, 5)
    owners = torch.arange(len(flat)).repeat_interleave(len(points) // max(len(flat), 1))
    parts = torch.ones(len(flat), 256, 256, dtype=torch.uint8)
    parts[:, :, 128:] = 2
    return {
        "images": images,
        "sizes": torch.tensor([[height, width]] * count),
        "originals": torch.tensor([[height * zoom, width * zoom]] * count),
        "counts": torch.tensor([len(group) for group in boxes]),
        "boxes": torch.tensor([box for _, *box in flat], dtype=torch.float32).reshape(-1, 4),
        "labels": labels,
        "masks": masks,
        "keypoints": keypoints,
        "surfaces": torch.ones(len(flat), dtype=torch.bool),
        "parts": parts,
        "points": points,
        "point_owners": owners,
    }


def _points() -> Tensor:
    grid = torch.linspace(8, 248, 12)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    x, y = x.flatten(), y.flatten()
    part = 1 + (x >= 128).float()
    return torch.stack([x, y, part, x / 256, y / 256], 1)
