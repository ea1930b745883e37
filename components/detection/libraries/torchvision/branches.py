"""Masks and keypoints of a region, and how regions are cut out of the maps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypointrcnn_loss
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from components.training.learner import Batch


class RegionPool(nn.Module):
    """Cuts regions out of the maps by RoIAlign, each out of the map that suits its size.

    torchvision's own has no aligned RoIAlign and guesses strides.

    Args:
        strides: Pixels between neighbours of the maps to cut from, the first of those given.
        size: Side of a region's features.
        sampling: Points of a bin along a side; 0 for as many as the region needs.
        aligned: Whether a pixel's value is at its centre.
    """

    def __init__(self, strides: Sequence[int], size: int, sampling: int, *, aligned: bool) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.size = size
        self.sampling = sampling
        self.aligned = aligned
        # Regions of 224 pixels are cut from the map of stride 16.
        levels = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
        self.level = LevelMapper(*levels, eps=1e-8)

    def forward(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return features, (R, C, size, size).

        Args:
            maps: The finest first; (N, C, h, w).
            boxes: Of each image, pixels, (R_i, 4).
        """
        read = list(maps.values())[: len(self.strides)]
        rows = torch.cat(
            [F.pad(own, (1, 0), value=float(image)) for image, own in enumerate(boxes)]
        )
        if len(read) == 1:
            return self._cut(read[0], rows, self.strides[0])
        levels = self.level(list(boxes))
        cut = read[0].new_zeros((len(rows), read[0].shape[1], self.size, self.size))
        for level, (level_map, stride) in enumerate(zip(read, self.strides, strict=True)):
            chosen = (levels == level).nonzero().flatten()
            cut.index_copy_(0, chosen, self._cut(level_map, rows[chosen], stride))
        return cut

    def _cut(self, level_map: Tensor, rows: Tensor, stride: int) -> Tensor:
        features: Tensor = roi_align(
            level_map, rows, self.size, 1 / stride, self.sampling, self.aligned
        )
        return features


@dataclass(frozen=True)
class Positives:
    """Sampled regions that overlap an instance, P in all.

    Attributes:
        boxes: Of each image, (P_i, 4).
        instances: Which of the batch's instances each overlaps, (P,).
        shared: What the box head's trunk made of each, (P, C, h, w).
    """

    boxes: Sequence[Tensor]
    instances: Tensor
    shared: Tensor


class Branch(nn.Module, ABC):
    """Something that is said of each region.

    A batch without positive regions gives losses of zero that reach every parameter, as
    training in many processes needs.

    Attributes:
        pool: Cuts its regions; None if it reads what the box head's trunk makes of them.
    """

    pool: RegionPool | None

    @abstractmethod
    def losses(
        self, maps: Mapping[str, Tensor], positives: Positives, batch: Batch
    ) -> dict[str, Tensor]:
        """Return its losses."""

    @abstractmethod
    def predict(
        self,
        maps: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        labels: Tensor,
        features: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return columns for all detections.

        Args:
            maps: Of all images.
            boxes: Detected in each image, (D_i, 4).
            labels: Of all of them, from 1, (D,).
            features: The trunk's output for them, where the branch has no pool.
        """


class Masks(Branch):
    """A mask for each class, twice as fine as its input."""

    def __init__(
        self, pool: RegionPool | None, channels: int, layers: int, width: int, classes: int
    ) -> None:
        super().__init__()
        self.pool = pool
        self.convolutions = MaskRCNNHeads(channels, (width,) * layers, dilation=1)
        self.predictor = MaskRCNNPredictor(width if layers else channels, width, classes)
        nn.init.zeros_(self.predictor.conv5_mask.bias)
        nn.init.normal_(self.predictor.mask_fcn_logits.weight, std=0.001)
        nn.init.zeros_(self.predictor.mask_fcn_logits.bias)

    def losses(
        self, maps: Mapping[str, Tensor], positives: Positives, batch: Batch
    ) -> dict[str, Tensor]:
        """Compare the mask of the true class with the instance's own, cut to the region."""
        features = positives.shared if self.pool is None else self.pool(maps, positives.boxes)
        logits = self._own(features, batch["labels"][positives.instances] + 1)
        if not len(logits):
            return {"loss_mask": logits.sum()}
        with torch.no_grad():
            truth = cut_masks(batch["masks"], positives, logits.shape[-1])
        return {"loss_mask": F.binary_cross_entropy_with_logits(logits, truth)}

    def predict(
        self,
        maps: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        labels: Tensor,
        features: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return how probable the mask is at each place of its box, (D, S, S)."""
        if self.pool is not None:
            features = self.pool(maps, boxes)
        assert features is not None
        return {"masks": self._own(features, labels).sigmoid()}

    def _own(self, features: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.predictor(self.convolutions(features))
        return logits[torch.arange(len(labels), device=labels.device), labels].float()


def cut_masks(masks: Tensor, positives: Positives, size: int) -> Tensor:
    """Cut the instances' masks to the regions, (P, size, size), 0 or 1.

    An image's at a time: single precision takes 32 times the memory of a mask's bits.
    """
    counts = [len(boxes) for boxes in positives.boxes]
    cut = []
    for boxes, instances in zip(positives.boxes, positives.instances.split(counts), strict=True):
        needed, rows = instances.unique(return_inverse=True)
        regions = torch.cat((rows[:, None].to(boxes), boxes), dim=1)
        cut.append(roi_align(masks[needed, None].float(), regions, size, aligned=True)[:, 0])
    return (torch.cat(cut) >= 0.5).float()


class Keypoints(Branch):
    """A heat map for each keypoint, four times as fine as its input."""

    pool: RegionPool

    def __init__(self, pool: RegionPool, channels: int, width: int, keypoints: int) -> None:
        super().__init__()
        self.pool = pool
        self.convolutions = KeypointRCNNHeads(channels, (width,) * 8)
        self.predictor = KeypointRCNNPredictor(width, keypoints)

    def losses(
        self, maps: Mapping[str, Tensor], positives: Positives, batch: Batch
    ) -> dict[str, Tensor]:
        """Compare each heat map with the place of its keypoint, if that is visible and inside."""
        loss = keypointrcnn_loss(
            self._heat(maps, positives.boxes),
            [torch.cat(list(positives.boxes))],
            [batch["keypoints"]],
            [positives.instances],
        )
        return {"loss_keypoint": loss}

    def predict(
        self,
        maps: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        labels: Tensor,
        features: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return x, y and score of each keypoint, (D, K, 3)."""
        heat = self._heat(maps, boxes)
        places, logits = heatmaps_to_keypoints(heat, torch.cat(list(boxes)))
        # The softmax over the places of the heat map, so that large and small boxes compare;
        # between the places the interpolation can overshoot.
        scores = (logits - heat.flatten(2).logsumexp(-1)).exp().clamp(max=1)
        return {"keypoints": torch.cat((places[..., :2], scores[..., None]), dim=-1)}

    def _heat(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        heat: Tensor = self.predictor(self.convolutions(self.pool(maps, boxes)))
        return heat.float().contiguous()  # the loss views it, whatever the layout of weights
