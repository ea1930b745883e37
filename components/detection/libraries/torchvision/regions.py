"""What is done with each region: box head, masks, keypoints, surfaces; their losses and results."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads

from components.detection.interface import Head
from components.detection.libraries.torchvision.branches import (
    Branch,
    Keypoints,
    Masks,
    Positives,
    RegionPool,
)
from components.detection.libraries.torchvision.features import Features
from components.detection.libraries.torchvision.surface import Surfaces
from components.detection.model import ModelConfig
from components.training.learner import Batch

Detections = dict[str, Tensor]
"""What is in an image: boxes, scores, labels (from 1), and what the branches say of each."""


class Regions(RoIHeads):  # type: ignore[misc]
    """torchvision's sampling and suppression around heads of the paper's library.

    Args:
        model: Thresholds and numbers.
        pool: Cuts regions out of the maps.
        trunk: What a region's features go through first; C4's mask branch reads its output too.
        box_head: To a vector.
        predictor: To class logits and box deltas.
        branches: What else is said of a region.
    """

    def __init__(
        self,
        model: ModelConfig,
        pool: RegionPool,
        trunk: nn.Module,
        box_head: nn.Module,
        predictor: FastRCNNPredictor,
        *,
        branches: Sequence[Branch],
    ) -> None:
        super().__init__(
            pool,
            box_head,
            predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=model.rois,
            positive_fraction=model.positive,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=model.score_threshold,
            nms_thresh=model.nms,
            detections_per_img=model.detections,
        )
        self.trunk = trunk
        self.branches = cast("list[Branch]", nn.ModuleList(branches))
        # Plain L1 costs keypoints accuracy, says detectron2's base config of keypoints.
        self.beta = 0.5 if model.keypoints else 0.0

    def losses(
        self,
        maps: Mapping[str, Tensor],
        proposals: list[Tensor],
        targets: list[Detections],
        batch: Batch,
    ) -> dict[str, Tensor]:
        """Sample regions and return all losses."""
        boxes, matched, labels, deltas = self.select_training_samples(proposals, targets)
        features = self.trunk(self.box_roi_pool(maps, boxes))
        label, delta = torch.cat(labels), torch.cat(deltas)
        losses = self._box_losses(*self._predict(features), label, delta)
        firsts = (batch["counts"].cumsum(0) - batch["counts"]).tolist()
        instances = torch.cat([own + first for own, first in zip(matched, firsts, strict=True)])
        chosen = label > 0
        positives = Positives(
            boxes=[own[kind > 0] for own, kind in zip(boxes, labels, strict=True)],
            instances=instances[chosen],
            shared=features[chosen],
        )
        for branch in self.branches:
            losses.update(branch.losses(maps, positives, batch))
        return losses

    def detect(
        self,
        maps: Mapping[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
    ) -> list[Detections]:
        """Return what is in each image, in pixels of the resized image."""
        logits, deltas = self._predict(self.trunk(self.box_roi_pool(maps, proposals)))
        detected = [
            {"boxes": boxes, "scores": scores, "labels": labels}
            for boxes, scores, labels in zip(
                *self.postprocess_detections(logits, deltas, proposals, sizes), strict=True
            )
        ]
        boxes = [detections["boxes"] for detections in detected]
        labels = torch.cat([detections["labels"] for detections in detected])
        for branch in self.branches:
            features = None
            if branch.pool is None:
                features = self.trunk(self.box_roi_pool(maps, boxes))
            said = branch.predict(maps, boxes, labels, features)
            for key, values in said.items():
                for detections, value in zip(
                    detected, values.split([len(b) for b in boxes]), strict=True
                ):
                    detections[key] = value
        return detected

    def _predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(features))
        return logits.float(), deltas.float()

    def _box_losses(
        self, logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        chosen = labels > 0
        own = deltas.view(len(labels), -1, 4)[chosen, labels[chosen]]
        placed = F.smooth_l1_loss(own, targets[chosen], beta=self.beta, reduction="sum")
        return {
            "loss_class": F.cross_entropy(logits, labels),
            "loss_box": placed / max(len(labels), 1),
        }


class GlobalMean(nn.Module):
    """C4's box head after conv5: the mean over a region, and a norm after it if there is one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """Return (R, C) of (R, C, h, w)."""
        pooled: Tensor = self.norm(features.mean((2, 3), keepdim=True))
        return pooled.flatten(1)


def build_regions(
    model: ModelConfig, head: Head, features: Features, conv5: nn.Module | None
) -> Regions:
    """Build the heads that a model and its data ask for.

    Args:
        model: What it is.
        head: Classes and keypoints.
        features: What they read.
        conv5: The last stage of C4's backbone; None for other kinds.
    """
    strides = features.strides[: features.for_regions]
    # DensePose's configs, of then and now, keep the RoIAlign that is half a pixel off.
    aligned = model.surface == "none"

    def pool(size: int) -> RegionPool:
        return RegionPool(strides, size, model.sampling, aligned=aligned)

    classes = head.classes + 1
    if conv5 is not None:
        width = [m.out_channels for m in conv5.modules() if isinstance(m, nn.Conv2d)][-1]
        norms = {
            place: nn.BatchNorm2d(width) if model.head_norm == place else nn.Identity()
            for place in ("before_pooling", "after_pooling")
        }
        trunk: nn.Module = nn.Sequential(conv5, norms["before_pooling"])
        box_head: nn.Module = GlobalMean(norms["after_pooling"])
    else:
        width = model.head_width
        trunk = nn.Identity()
        box_head = _hidden_layers(features.channels * model.pooling**2, width)
    branches: list[Branch] = []
    finer = pool(2 * model.pooling)
    if model.masks and conv5 is not None:
        branches.append(Masks(None, width, 0, model.mask_channels, classes))
    elif model.masks:
        branches.append(Masks(finer, features.channels, 4, model.mask_channels, classes))
    if model.keypoints:
        branches.append(
            Keypoints(finer, features.channels, model.keypoint_channels, head.keypoints)
        )
    if model.surface != "none":
        branches.append(Surfaces(features, model))
    predictor = _box_predictor(width, classes)
    return Regions(model, pool(model.pooling), trunk, box_head, predictor, branches=branches)


def _box_predictor(width: int, classes: int) -> FastRCNNPredictor:
    predictor = FastRCNNPredictor(width, classes)
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    return predictor


def _hidden_layers(channels: int, width: int) -> TwoMLPHead:
    head = TwoMLPHead(channels, width)
    for layer in (head.fc6, head.fc7):
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(layer.bias)
    return head
