"""DensePose: its head on any image, our targets as its own, and what it predicts as ours (A.3)."""

from dataclasses import fields, replace
from typing import Any

import torch
from densepose import DensePoseDataRelative, DensePoseList, DensePoseROIHeads
from densepose.converters import ToChartResultConverter
from densepose.structures import quantize_densepose_chart_result
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import Tensor

from components.detection.interface import split_counts
from components.training.learner import Batch


@ROI_HEADS_REGISTRY.register()
class SurfaceROIHeads(DensePoseROIHeads):  # type: ignore[misc]
    """DensePose's heads, which learn from an image without instances too."""

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Sample proposals, and give those of an empty image the fields that others have.

        DensePose would leave such an image out of the regions, and not out of the features.
        """
        sampled: list[Instances] = super().label_and_sample_proposals(proposals, targets)
        for regions in sampled:
            if not regions.has("gt_densepose"):
                regions.gt_boxes = Boxes(torch.zeros_like(regions.proposal_boxes.tensor))
                nothing = [None] * len(regions)
                regions.gt_densepose = _surface_list(nothing, regions.gt_boxes, regions.image_size)
        return sampled


def add_surfaces(batch: Batch, images: list[Instances]) -> None:
    """Add a batch's surfaces to the targets of its images."""
    counts = torch.bincount(batch["point_owners"], minlength=len(batch["labels"]))
    points = batch["points"][batch["point_owners"].argsort(stable=True)].split(counts.tolist())
    annotated = batch["surfaces"].tolist()
    surfaces = [
        _surface(own, parts) if there else None
        for own, parts, there in zip(points, batch["parts"], annotated, strict=True)
    ]
    start = 0
    for image, boxes in zip(images, split_counts(batch, "boxes"), strict=True):
        own_surfaces = surfaces[start : start + len(boxes)]
        image.gt_densepose = _surface_list(own_surfaces, image.gt_boxes, image.image_size)
        start += len(boxes)


def read_surfaces(instances: Instances) -> tuple[Tensor, ...]:
    """Return parts, u and v of each instance, (3, h, w), uint8, from instances in final pixels."""
    if not instances.has("pred_densepose"):  # of an image without instances
        return ()
    predicted = instances.pred_densepose
    tensors = {f.name: getattr(predicted, f.name) for f in fields(predicted)}
    # The conversion takes no half precision.
    predicted = replace(predicted, **{k: v.float() for k, v in tensors.items() if v is not None})
    charts = []
    for index in range(len(instances)):
        row = slice(index, index + 1)
        chart = ToChartResultConverter.convert(predicted[row], instances.pred_boxes[row])
        charts.append(quantize_densepose_chart_result(chart).labels_uv_uint8.cpu())
    return tuple(charts)


def _surface(points: Tensor, parts: Tensor) -> DensePoseDataRelative:
    x, y, part, u, v = points.unbind(1)
    fields: dict[str, Any] = {"dp_x": x, "dp_y": y, "dp_I": part, "dp_U": u, "dp_V": v}
    return DensePoseDataRelative({**fields, "dp_masks": parts.float()})


def _surface_list(
    surfaces: list[DensePoseDataRelative | None], boxes: Boxes, size: tuple[int, int]
) -> DensePoseList:
    return DensePoseList(surfaces, boxes.tensor, size, boxes.device)
