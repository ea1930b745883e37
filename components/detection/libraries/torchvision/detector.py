"""From a batch to losses, or to predictions in pixels of the original images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from components.detection.interface import Detector, normalise, split_counts
from components.detection.libraries.torchvision.features import Features
from components.detection.libraries.torchvision.proposals import Proposals
from components.detection.libraries.torchvision.regions import Detections, Regions
from components.detection.libraries.torchvision.surface import read_surface
from components.training.learner import Batch, Losses
from components.vision.architectures import BackboneCard
from components.vision.prediction import Prediction

MULTIPLE = 32
"""Sides are padded to multiples of it, so that each map is half of the one before."""


class TorchvisionDetector(Detector):
    """Faster R-CNN and its branches, of torchvision's parts."""

    def __init__(
        self, features: Features, proposals: Proposals, regions: Regions, card: BackboneCard
    ) -> None:
        super().__init__()
        self.features = features
        self.proposals = proposals
        self.regions = regions
        self.card = card

    def forward(self, batch: Batch) -> Losses:
        """Return the sum of the losses, and each of them."""
        images, maps = self._read(batch)
        targets = [
            {"boxes": boxes, "labels": labels + 1}  # 0 is background
            for boxes, labels in zip(
                split_counts(batch, "boxes"), split_counts(batch, "labels"), strict=True
            )
        ]
        boxes, losses = self.proposals(images, maps, targets)
        losses = {
            "loss_rpn_objectness": losses["loss_objectness"],
            "loss_rpn_box": losses["loss_rpn_box_reg"],
            **self.regions.losses(maps, boxes, targets, batch),
        }
        return torch.stack(list(losses.values())).sum(), losses

    @torch.no_grad()
    def predict(self, batch: Batch) -> Sequence[Prediction]:
        """Return what is in each image; in evaluation mode."""
        images, maps = self._read(batch)
        boxes, _ = self.proposals(images, maps)
        detected = self.regions.detect(maps, boxes, images.image_sizes)
        return [
            to_prediction(detections, size, original)
            for detections, size, original in zip(
                detected, images.image_sizes, batch["originals"].tolist(), strict=True
            )
        ]

    def _read(self, batch: Batch) -> tuple[ImageList, dict[str, Tensor]]:
        images = normalise(batch["images"], batch["sizes"], self.card.mean, self.card.std)
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        sizes = [(height, width) for height, width in batch["sizes"].tolist()]
        return ImageList(images, sizes), self.features(images)


def to_prediction(
    detections: Detections, size: tuple[int, int], original: tuple[int, int]
) -> Prediction:
    """Scale what was found in a resized image to the original; empty boxes are dropped.

    Args:
        detections: As `Regions.detect` returns it.
        size: Height and width of the resized image.
        original: Height and width of the image file.
    """
    height, width = original
    scale = detections["boxes"].new_tensor([width / size[1], height / size[0]])
    boxes = detections["boxes"] * scale.repeat(2)
    boxes = torch.minimum(boxes, boxes.new_tensor([width, height]).repeat(2)).clamp(min=0)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    detections = {key: values[kept] for key, values in detections.items()}
    boxes = boxes[kept]
    masks = keypoints = surfaces = None
    if "masks" in detections:
        masks = paste_masks(detections["masks"], boxes, height, width).cpu()
    if "keypoints" in detections:
        places, scores = detections["keypoints"].split((2, 1), dim=-1)
        keypoints = torch.cat((places * scale, scores), dim=-1).cpu()
    if "surfaces" in detections:
        sides = (boxes[:, 2:] - boxes[:, :2]).long().clamp(min=1).tolist()
        surfaces = tuple(
            read_surface(said, high, wide).cpu()
            for said, (wide, high) in zip(detections["surfaces"], sides, strict=True)
        )
    return Prediction(
        boxes=boxes.cpu(),
        scores=detections["scores"].cpu(),
        labels=detections["labels"].cpu() - 1,
        masks=masks,
        keypoints=keypoints,
        surfaces=surfaces,
    )


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Paint masks into the image, (D, height, width), bool.

    A pixel is the mask's if, at its centre, the mask is more likely than not.

    Args:
        masks: Probabilities, (D, S, S).
        boxes: Where they are, pixels, (D, 4).
        height: Of the image.
        width: Of the image.
    """
    painted = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    for canvas, mask, (left, top, right, bottom) in zip(
        painted, masks, boxes.tolist(), strict=True
    ):
        columns = slice(int(left), min(int(right) + 1, width))
        rows = slice(int(top), min(int(bottom) + 1, height))
        x = torch.arange(columns.start, columns.stop, device=masks.device) + 0.5
        y = torch.arange(rows.start, rows.stop, device=masks.device) + 0.5
        grid = torch.stack(
            torch.meshgrid(
                2 * (x - left) / (right - left) - 1,
                2 * (y - top) / (bottom - top) - 1,
                indexing="xy",
            ),
            dim=-1,
        )
        painted_here = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= 0.5
        canvas[rows, columns] = painted_here
    return painted
