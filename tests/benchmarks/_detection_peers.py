"""The peers of detection: torchvision and detectron2 as they come, on the data of ours."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.detection.coco import CocoConfig

Step = Callable[[], object]
Columns = Mapping[str, Tensor]
"""A batch of ours, as `components.detection.interface` has it."""


def torchvision_step(config: CocoConfig, columns: Columns, classes: int) -> Step:
    """Return a step of torchvision's reference training, on its stock Mask R-CNN."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,  # so all of it learns, its batch norm too
        num_classes=classes + 1,
        min_size=config.shorter_sides[0],
        max_size=config.longer_side,
        rpn_batch_size_per_image=config.model.rpn.batch,
        rpn_post_nms_top_n_train=config.model.rpn.proposals[0],
        box_batch_size_per_image=config.model.rois,
    ).train()
    optimizer = torch.optim.SGD(
        model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    images = [one["image"].float() / 255 for one in _images(columns)]
    targets = [
        {
            "boxes": one["boxes"],
            "labels": one["labels"] + 1,
            "masks": one["masks"].to(torch.uint8),
        }
        for one in _images(columns)
    ]

    def step() -> None:
        losses = model(images, targets)
        loss = sum(losses.values())
        if not math.isfinite(loss.item()):
            sys.exit(f"torchvision's loss is {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def detectron2_step(
    config: CocoConfig, columns: Columns, classes: int, device: str = "cpu"
) -> Step:
    """Return a step of detectron2's trainer, on the model of its released config."""
    from detectron2.engine import SimpleTrainer
    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    cfg = _released_config(config)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    inputs = []
    for one in _images(columns):
        targets = Instances(one["image"].shape[1:])
        targets.gt_boxes = Boxes(one["boxes"])
        targets.gt_classes = one["labels"]
        targets.gt_masks = BitMasks(one["masks"])
        inputs.append({"image": one["image"], "instances": targets})
    trainer = SimpleTrainer(model, repeat(inputs), build_optimizer(cfg, model))

    def step() -> None:
        with EventStorage():
            trainer.run_step()

    return step


def torchvision_batches(config: CocoConfig, folder: Path, split: str) -> Iterator[Any]:
    """Return batches of torchvision's reference training: boxes, classes and bit masks."""
    from torchvision import datasets, tv_tensors
    from torchvision.transforms import v2

    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomShortestSize(list(config.shorter_sides), config.longer_side),
            v2.RandomHorizontalFlip(config.flip),
            v2.ToDtype({tv_tensors.Image: torch.float, "others": None}, scale=True),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    file = folder / "annotations" / f"instances_{split}.json"
    dataset = datasets.CocoDetection(folder / split, str(file), transforms=transforms)
    loader = torch.utils.data.DataLoader(
        datasets.wrap_dataset_for_transforms_v2(dataset, ("boxes", "labels", "masks")),
        batch_size=config.batch_size,
        shuffle=True,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
    )
    while True:
        yield from loader


def detectron2_batches(
    config: CocoConfig, folder: Path, split: str, masks: str = "bitmask"
) -> Iterator[Any]:
    """Return batches of detectron2's training loader.

    Args:
        config: Sizes and batch.
        folder: A data set of COCO's layout.
        split: Of it.
        masks: `bitmask`, or `polygon` as in the released configs, whose loss draws them.
    """
    from detectron2.data import build_detection_train_loader
    from detectron2.data.datasets import register_coco_instances

    file = folder / "annotations" / f"instances_{split}.json"
    name = f"coco_{split}_{masks}"
    register_coco_instances(name, {}, str(file), str(folder / split))
    cfg = _released_config(config)
    cfg.DATASETS.TRAIN = (name,)
    cfg.INPUT.MASK_FORMAT = masks
    cfg.DATALOADER.NUM_WORKERS = 0
    yield from build_detection_train_loader(cfg)


def _released_config(config: CocoConfig) -> Any:
    """Return the config of Mask R-CNN R50-FPN or C4, 1×, with the paper's norms and our sizes."""
    import detectron2
    from detectron2.config import get_cfg

    cfg = get_cfg()
    kind = config.model.kind.upper()
    zoo = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    cfg.merge_from_file(str(zoo / "COCO-InstanceSegmentation" / f"mask_rcnn_R_50_{kind}_1x.yaml"))
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN = config.shorter_sides
    cfg.INPUT.MAX_SIZE_TRAIN = config.longer_side
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = config.model.rpn.batch
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = config.model.rois
    cfg.SOLVER.BASE_LR = config.lr
    cfg.SOLVER.IMS_PER_BATCH = config.batch_size
    return cfg


def _images(columns: Columns) -> Iterator[dict[str, Tensor]]:
    """Take a batch apart: an image without its padding, and its instances."""
    counts = columns["counts"].tolist()
    own = zip(*(columns[name].split(counts) for name in ("boxes", "labels", "masks")), strict=True)
    for image, (height, width), (boxes, labels, masks) in zip(
        columns["images"], columns["sizes"].tolist(), own, strict=True
    ):
        yield {
            "image": image[:, :height, :width].contiguous(),
            "boxes": boxes,
            "labels": labels,
            "masks": masks[:, :height, :width],
        }
