"""The region proposal network: anchors, head, and the losses of the paper's library."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from components.detection.libraries.torchvision.features import Features
from components.detection.model import ModelConfig


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors of the exact size at the exact strides.

    torchvision rounds anchors to pixels, and divides the image's size by the map's, which is
    not the stride where a map's last place reaches over the image.
    """

    def __init__(
        self,
        sizes: tuple[tuple[float, ...], ...],
        ratios: tuple[float, ...],
        strides: tuple[int, ...],
    ) -> None:
        super().__init__(sizes, (ratios,) * len(sizes))
        self.strides = strides

    def generate_anchors(
        self,
        scales: tuple[float, ...],
        aspect_ratios: tuple[float, ...],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return anchors around the origin, (sizes times ratios, 4)."""
        side = torch.tensor(scales, dtype=dtype, device=device)
        root = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()[:, None]
        half = torch.stack((side / root, side * root), dim=-1).flatten(0, 1) / 2
        return torch.cat((-half, half), dim=1)

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors of all maps for each image, (A, 4)."""
        self.set_cell_anchors(torch.float32, maps[0].device)
        grids = [level_map.shape[-2:] for level_map in maps]
        anchors = torch.cat(self.grid_anchors(grids, [(stride, stride) for stride in self.strides]))
        return [anchors for _ in images.image_sizes]


class ProposalHead(RPNHead):  # type: ignore[misc]
    """torchvision's head; its output is in single precision, as boxes need it."""

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return objectness and box deltas of each map."""
        objectness, deltas = super().forward(maps)
        return [values.float() for values in objectness], [values.float() for values in deltas]


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's network with L1 box losses, both divided by the wanted size of the sample."""

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and boxes.

        Args:
            objectness: Of all anchors of all images, (A, 1).
            deltas: (A, 4).
            labels: For each image: 1 for an instance, 0 for background, -1 to ignore.
            targets: For each image: the deltas to its instances.
        """
        positive, negative = (torch.cat(chosen) > 0 for chosen in self.fg_bg_sampler(labels))
        sampled = positive | negative
        size = self.fg_bg_sampler.batch_size_per_image * len(labels)
        scored = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        placed = F.l1_loss(deltas[positive], torch.cat(targets)[positive], reduction="sum")
        return scored / size, placed / size


def build_proposals(model: ModelConfig, features: Features) -> Proposals:
    """Build the network for the maps; its thresholds are those of both libraries."""
    rpn = model.rpn
    pyramid = len(features.strides) > 1
    sizes = tuple((size,) for size in rpn.anchor_sizes) if pyramid else (rpn.anchor_sizes,)
    anchors = Anchors(sizes, rpn.anchor_ratios, features.strides)
    return Proposals(
        anchors,
        ProposalHead(features.channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=rpn.batch,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), rpn.proposals_before, strict=True)),
        post_nms_top_n=dict(zip(("training", "testing"), rpn.proposals, strict=True)),
        nms_thresh=rpn.nms,
    )
