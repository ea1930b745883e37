"""DensePose: which part of the body's surface each place of a region shows, and where on it."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from components.detection.libraries.torchvision.branches import Branch, Positives, RegionPool
from components.detection.libraries.torchvision.features import Features
from components.detection.model import ModelConfig
from components.evaluation.body import FINE_PARTS
from components.training.learner import Batch

PARTS = FINE_PARTS + 1
"""Of the surface, and the background."""
CONVOLUTIONS = 8
OVERLAP = 0.7
"""Regions learn that overlap an annotated instance by more than this."""
BOX = 256
"""Annotated places along each side of an instance's box."""


FINER = 2
"""Side of a region's features over the box head's; what is said of it is four times as fine."""
COARSE = 15
"""Coarse parts and background."""
COARSE_WEIGHT, PART_WEIGHT, PLACE_WEIGHT = 2.0, 0.3, 0.1
"""Of the losses; those of u and v are sums over points. detectron2's R_50_FPN_s1x_legacy."""


class Surfaces(Branch):
    """Coarse parts, parts, and u and v for each part."""

    pool: RegionPool

    def __init__(self, features: Features, model: ModelConfig) -> None:
        super().__init__()
        strides = features.strides[: features.for_regions]
        self.pool = RegionPool(strides, FINER * model.pooling, model.sampling, aligned=False)
        layers: list[nn.Module] = []
        channels, width = features.channels, model.surface_channels
        for _ in range(CONVOLUTIONS):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        self.head = nn.Sequential(*layers)
        self.predictor = nn.ConvTranspose2d(
            width, COARSE + 3 * PARTS, kernel_size=4, stride=2, padding=1
        )
        for layer in (*self.head.children(), self.predictor):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                initialise(layer)

    def losses(
        self, maps: Mapping[str, Tensor], positives: Positives, batch: Batch
    ) -> dict[str, Tensor]:
        """Compare regions that overlap an annotated instance well with its parts and points."""
        boxes = torch.cat(list(positives.boxes))
        owners = batch["boxes"][positives.instances]
        good = batch["surfaces"][positives.instances] & (
            box_iou(boxes, owners).diagonal() > OVERLAP
        )
        image_good = good.split([len(own) for own in positives.boxes])
        chosen = [own[keep] for own, keep in zip(positives.boxes, image_good, strict=True)]
        said = self._say(maps, chosen)
        return surface_losses(said, boxes[good], positives.instances[good], batch)

    def predict(
        self,
        maps: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        labels: Tensor,
        features: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return all that is said of a region, for `read_surface`, (D, C, S, S)."""
        return {"surfaces": self._say(maps, boxes)}

    def _say(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        said = self.predictor(self.head(self.pool(maps, boxes)))
        return F.interpolate(said.float(), scale_factor=2, mode="bilinear")


def initialise(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Draw a layer's weights as the paper's library does."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def surface_losses(
    said: Tensor, boxes: Tensor, instances: Tensor, batch: Batch
) -> dict[str, Tensor]:
    """Return the four losses, as detectron2's DensePose has them.

    Args:
        said: Of K regions, (K, coarse + 75, S, S).
        boxes: Of the regions, pixels, (K, 4).
        instances: Which instance of the batch each shows, (K,).
        batch: Has the annotations.
    """
    coarse, part, u, v = said.split((COARSE, PARTS, PARTS, PARTS), dim=1)
    owners = batch["boxes"][instances]
    region, point = torch.where(instances[:, None] == batch["point_owners"])
    x, y, label, true_u, true_v = batch["points"][point].unbind(1)
    # Points and regions are related through pixels, then through places of the heat map.
    left, top, width, height = _corner_and_sides(owners[region])
    place = torch.stack((left + x * width / BOX, top + y * height / BOX), dim=1)
    left, top, width, height = _corner_and_sides(boxes[region])
    place = (place - torch.stack((left, top), 1)) / torch.stack((width, height), 1) * said.shape[-1]
    inside = ((place >= 0) & (place < said.shape[-1])).all(1)
    region, place, label = region[inside], place[inside], label[inside].long()
    own = label[:, None]
    parts = at_points(part, region, place)
    u, v = (at_points(heat, region, place).gather(1, own)[:, 0] for heat in (u, v))
    with torch.no_grad():
        truth = cut_parts(batch["parts"][instances], owners, boxes, said.shape[-1])
        truth = truth.clamp(max=COARSE - 1)
    return {
        "loss_surface_coarse": COARSE_WEIGHT * _cross_entropy(coarse, truth),
        "loss_surface_part": PART_WEIGHT * _cross_entropy(parts, label),
        "loss_surface_u": PLACE_WEIGHT * F.smooth_l1_loss(u, true_u[inside], reduction="sum"),
        "loss_surface_v": PLACE_WEIGHT * F.smooth_l1_loss(v, true_v[inside], reduction="sum"),
    }


def cut_parts(parts: Tensor, owners: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resample coarse parts from an instance's box to a region, the nearest; 0 outside.

    Args:
        parts: (K, 256, 256).
        owners: Boxes of the instances, (K, 4).
        boxes: The regions, (K, 4).
        size: Places along a side of the result, (K, size, size), int64.
    """
    left, top, width, height = (values[:, None] for values in _corner_and_sides(owners))
    from_left, from_top, wide, high = (values[:, None] for values in _corner_and_sides(boxes))
    step = torch.arange(size, device=boxes.device) / size
    x = 2 * (from_left + step * wide - left) / width - 1
    y = 2 * (from_top + step * high - top) / height - 1
    shape = (len(boxes), size, size)
    grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), dim=-1)
    cut = F.grid_sample(parts[:, None].float(), grid, mode="nearest", align_corners=True)
    return cut[:, 0].long()


def at_points(heat: Tensor, regions: Tensor, places: Tensor) -> Tensor:
    """Interpolate between the four places around each point, (P, C).

    Args:
        heat: (K, C, S, S); a place's value is at its upper left corner, as in detectron2.
        regions: Which of the K each point is in, (P,).
        places: x and y, 0 to S, (P, 2).
    """
    low = places.long()
    high = (low + 1).clamp(max=heat.shape[-1] - 1)
    share = torch.minimum(places, high) - low
    (x0, y0), (x1, y1), (x, y) = (points.unbind(1) for points in (low, high, share))
    x, y = x[:, None], y[:, None]
    above = heat[regions, :, y0, x0] * (1 - x) + heat[regions, :, y0, x1] * x
    below = heat[regions, :, y1, x0] * (1 - x) + heat[regions, :, y1, x1] * x
    return above * (1 - y) + below * y


def read_surface(said: Tensor, height: int, width: int) -> Tensor:
    """Return part, u and v of each pixel of a box, (3, height, width), uint8.

    Args:
        said: Of a region, (coarse + 75, S, S).
        height: Of the box, whole pixels.
        width: Of the box, whole pixels.
    """
    fine = F.interpolate(said[None], (height, width), mode="bilinear")[0]
    coarse, parts, u, v = fine.split((len(fine) - 3 * PARTS, PARTS, PARTS, PARTS))
    part = parts.argmax(0) * (coarse.argmax(0) > 0)
    u, v = (values.gather(0, part[None])[0].clamp(0, 1) * 255 * (part > 0) for values in (u, v))
    return torch.stack((part, u, v)).to(torch.uint8)


def _corner_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    left, top, right, bottom = boxes.unbind(1)
    return left, top, right - left, bottom - top


def _cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean over all there are; zero if there are none, but of the logits."""
    return F.cross_entropy(logits, truth) if len(truth) else logits.sum()
