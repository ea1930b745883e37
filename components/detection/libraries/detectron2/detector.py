"""detectron2's R-CNN behind the interface of the training loop."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from components.detection.interface import Detector, Head, split_counts
from components.detection.libraries.detectron2 import backbones, heads
from components.detection.libraries.detectron2.config import to_cfg
from components.detection.model import ModelConfig
from components.training.learner import Batch, Losses
from components.vision.backbones import read_card
from components.vision.prediction import Prediction

REGISTERED = (backbones, heads)  # what detectron2 finds by name


class Detectron2Detector(Detector):
    """A GeneralizedRCNN on a converted backbone.

    Attributes:
        model: detectron2's model.
    """

    def __init__(self, model: ModelConfig, backbone: Path, head: Head) -> None:
        super().__init__()
        card = read_card(backbone)
        self._config = model
        if model.surface != "none":
            _surfaces()
        self.model = GeneralizedRCNN(to_cfg(model, head, card))
        backbones.load_converted(self.model, backbone, card.architecture)

    def forward(self, batch: Batch) -> Losses:
        """Return the sum of the losses, and each of them, by detectron2's names."""
        inputs = _inputs(batch)
        for image, targets in zip(inputs, self._targets(batch), strict=True):
            image["instances"] = targets
        try:
            with EventStorage():  # detectron2 writes figures to the innermost
                losses = self.model(inputs)
        except FloatingPointError:  # from the proposals, before there is a loss
            return self._not_a_number(), {}
        return torch.stack(list(losses.values())).sum(), losses

    @torch.no_grad()
    def predict(self, batch: Batch) -> Sequence[Prediction]:
        """Return what is in each image."""
        sizes = batch["originals"].tolist()
        inputs = [
            {**image, "height": height, "width": width}
            for image, (height, width) in zip(_inputs(batch), sizes, strict=True)
        ]
        return [self._prediction(output["instances"]) for output in self.model.inference(inputs)]

    def _targets(self, batch: Batch) -> list[Instances]:
        sizes = batch["sizes"].tolist()
        images = [Instances((height, width)) for height, width in sizes]
        columns = {key: split_counts(batch, key) for key in ("boxes", "labels")}
        for key, wanted in (("masks", self._config.masks), ("keypoints", self._config.keypoints)):
            if wanted:
                columns[key] = split_counts(batch, key)
        for index, image in enumerate(images):
            height, width = sizes[index]
            image.gt_boxes = Boxes(columns["boxes"][index])
            image.gt_classes = columns["labels"][index]
            if "masks" in columns:
                image.gt_masks = BitMasks(columns["masks"][index][:, :height, :width])
            if "keypoints" in columns:
                image.gt_keypoints = Keypoints(columns["keypoints"][index])
        if self._config.surface != "none":
            _surfaces().add_surfaces(batch, images)
        return images

    def _prediction(self, instances: Instances) -> Prediction:
        instances = instances[instances.scores.argsort(descending=True, stable=True)]
        return Prediction(
            boxes=instances.pred_boxes.tensor.float().cpu(),
            scores=instances.scores.float().cpu(),
            labels=instances.pred_classes.cpu(),
            masks=instances.pred_masks.cpu() if self._config.masks else None,
            keypoints=instances.pred_keypoints.float().cpu() if self._config.keypoints else None,
            surfaces=_surfaces().read_surfaces(instances)
            if self._config.surface != "none"
            else None,
        )

    def _not_a_number(self) -> torch.Tensor:
        """Return what the loop stops at, on every process: each parameter is in it."""
        learned = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
        return torch.stack(learned).sum() * math.nan


def _surfaces() -> ModuleType:
    """Return what needs DensePose; its import registers the heads."""
    from components.detection.libraries.detectron2 import surfaces

    return surfaces


def _inputs(batch: Batch) -> list[dict[str, Any]]:
    sizes = batch["sizes"].tolist()
    return [
        {"image": image[:, :height, :width]}
        for image, (height, width) in zip(batch["images"], sizes, strict=True)
    ]
