"""Every preset is a released config, model and training, but for what the paper does otherwise."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.detection.config import DetectionConfig
from components.detection.interface import Head
from components.vision.architectures import BackboneCard
from tests.detection.making import PRESETS

detectron2 = pytest.importorskip("detectron2", reason="needs detectron2: make detectron2")

from detectron2.config import get_cfg  # noqa: E402

from components.core.errors import ConfigError  # noqa: E402
from components.detection.libraries.detectron2.config import to_cfg  # noqa: E402

ZOO = Path(detectron2.__file__).parent / "model_zoo" / "configs"
CARD = BackboneCard(architecture="resnet50", origin="moco")
BESIDE = ("INPUT.FORMAT", "INPUT.MASK_FORMAT", "TEST.DETECTIONS_PER_IMAGE")
"""What says of the model, and is not under MODEL."""
ELSEWHERE = ("MODEL.WEIGHTS", "MODEL.DEVICE")
"""What is under MODEL, and is the business of `convert` and of the training loop."""

VOC, COCO, LVIS = Head(20), Head(80), Head(1230)
SEGMENTATION = "COCO-InstanceSegmentation/mask_rcnn_R_50"
LVIS_RELEASED = "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"
RELEASED: Mapping[str, tuple[str, Head]] = {
    "fpn_1x": (f"{SEGMENTATION}_FPN_1x", COCO),
    "fpn_2x": (f"{SEGMENTATION}_FPN_1x", COCO),
    "fpn_6x": (f"{SEGMENTATION}_FPN_1x", COCO),
    "c4_1x": (f"{SEGMENTATION}_C4_1x", COCO),
    "c4_2x": (f"{SEGMENTATION}_C4_1x", COCO),
    "voc_c4": ("PascalVOC-Detection/faster_rcnn_R_50_C4", VOC),
    "voc_dc5": ("Base-RCNN-DilatedC5", VOC),
    "keypoints": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", Head(1, 17)),
    "densepose": ("Base-RCNN-FPN", Head(1)),
    "densepose_deeplab": ("Base-RCNN-FPN", Head(1)),
    "lvis_frozen_1x": (LVIS_RELEASED, LVIS),
    "lvis_frozen_2x": (LVIS_RELEASED, LVIS),
    "lvis_tuned_1x": (LVIS_RELEASED, LVIS),
    "lvis_tuned_2x": (LVIS_RELEASED, LVIS),
    "cityscapes": ("Cityscapes/mask_rcnn_R_50_FPN", Head(8)),
}
"""For each preset what is released, of detectron2's own configs, and what the data asks for."""

DENSEPOSE_RELEASED = {
    "MODEL.ROI_HEADS.NAME": "DensePoseROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_DENSEPOSE_HEAD.NAME": "DensePoseV1ConvXHead",
    "MODEL.ROI_DENSEPOSE_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS": 2,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.WARMUP_FACTOR": 0.1,
    "SOLVER.MAX_ITER": 130_000,
    "SOLVER.STEPS": (100_000, 120_000),
}
"""What the DensePose project's configs say in common; they are not installed with it."""
PROJECT = {
    "densepose": {
        **DENSEPOSE_RELEASED,
        "MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS": 15,
        "MODEL.ROI_DENSEPOSE_HEAD.POOLER_RESOLUTION": 14,
        "MODEL.ROI_DENSEPOSE_HEAD.HEATMAP_SIZE": 56,
        "MODEL.ROI_DENSEPOSE_HEAD.INDEX_WEIGHTS": 2.0,
        "MODEL.ROI_DENSEPOSE_HEAD.PART_WEIGHTS": 0.3,
        "MODEL.ROI_DENSEPOSE_HEAD.POINT_REGRESSION_WEIGHTS": 0.1,
        "MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON": False,
        "SOLVER.BASE_LR": 0.002,
    },
    "densepose_deeplab": {
        **DENSEPOSE_RELEASED,
        "MODEL.ROI_DENSEPOSE_HEAD.NAME": "DensePoseDeepLabHead",
    },
}
"""densepose_rcnn_R_50_FPN_s1x_legacy and densepose_rcnn_R_50_FPN_DL_s1x."""

EVERY = tuple(PRESETS)
TUNED = tuple(name for name in EVERY if "frozen" not in name)
C4 = ("c4_1x", "c4_2x", "voc_c4")
DC5 = ("voc_dc5",)
PYRAMIDS = tuple(name for name in TUNED if name not in C4 + DC5)
ON_VOC = ("voc_c4", "voc_dc5")
TWICE = ("fpn_2x", "c4_2x", "keypoints", "lvis_frozen_2x", "lvis_tuned_2x")
DIFFERENCES: tuple[tuple[tuple[str, ...], str, Any, str], ...] = (
    (EVERY, "INPUT.FORMAT", "RGB", "pre-training is RGB; so the authors' configs"),
    (EVERY, "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], "likewise"),
    (EVERY, "MODEL.PIXEL_STD", [58.395, 57.12, 57.375], "likewise"),
    (EVERY, "MODEL.RESNETS.STRIDE_IN_1X1", False, "torchvision's ResNet; the authors' configs"),
    (EVERY, "MODEL.BACKBONE.FREEZE_AT", 0, "all layers are tuned, Sec. 4.2"),
    (EVERY, "TEST.PRECISE_BN.ENABLED", True, "the authors' configs"),
    (EVERY, "INPUT.MASK_FORMAT", "bitmask", "not the paper's: how masks reach the model here"),
    (TUNED, "MODEL.RESNETS.NORM", "BN", "tuned, Sec. 4.2; the loop synchronises it"),
    (PYRAMIDS, "MODEL.FPN.NORM", "BN", "batch norm in the pyramid, Sec. 4.2, A.2, A.4, A.8"),
    (C4, "MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtraNorm", "A.1 (ii); on COCO as released"),
    (DC5, "MODEL.BACKBONE.NAME", "build_dilated_c5_backbone", "A.1 (i)"),
    (DC5, "MODEL.DILATED_C5.OUT_CHANNELS", 512, "A.1 (i)"),
    (DC5, "MODEL.DILATED_C5.NORM", "BN", "A.1 (i)"),
    (DC5, "MODEL.RPN.IN_FEATURES", ["dilated_c5"], "A.1 (i)"),
    (DC5, "MODEL.ROI_HEADS.IN_FEATURES", ["dilated_c5"], "A.1 (i)"),
    (DC5, "MODEL.ROI_HEADS.NUM_CLASSES", 20, "A.1 is on VOC; the released config is COCO's"),
    (DC5, "INPUT.MIN_SIZE_TRAIN", tuple(range(480, 801, 32)), "A.1, likewise"),
    (DC5, "SOLVER.WARMUP_ITERS", 100, "as R50-C4's on VOC"),
    (ON_VOC, "SOLVER.MAX_ITER", 24_000, "A.1"),
    (ON_VOC, "SOLVER.STEPS", (18_000, 22_000), "A.1"),
    (TWICE, "SOLVER.MAX_ITER", 180_000, "2×: Sec. 4.2 (Table 5), A.2, A.4, A.8"),
    (TWICE, "SOLVER.STEPS", (120_000, 160_000), "likewise"),
    (("fpn_6x",), "SOLVER.MAX_ITER", 540_000, "6×: A.8"),
    (("fpn_6x",), "SOLVER.STEPS", (480_000, 520_000), "likewise"),
    (
        ("keypoints",),
        "MODEL.ROI_KEYPOINT_HEAD.NAME",
        "ContiguousKeypointHead",
        "not the paper's: KRCNNConvDeconvUpsampleHead, but for maps that lie channels-last",
    ),
    (
        tuple(PROJECT),
        "MODEL.ROI_HEADS.NAME",
        "SurfaceROIHeads",
        "not the paper's: DensePoseROIHeads, but for images without instances",
    ),
)
"""Of which presets, which value, what ours is, and why; A.n are sections of the appendix."""


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_released_config_but_for_what_the_paper_says(name: str) -> None:
    released, head = RELEASED[name]
    config, cfg = PRESETS[name], get_cfg()
    if name in PROJECT:
        densepose = pytest.importorskip("densepose", reason="needs DensePose: make detectron2")
        densepose.add_densepose_head_config(cfg)
    cfg.merge_from_file(str(ZOO / f"{released}.yaml"))
    learning = training(config)
    everything = dict(leaves(cfg))
    expected = flat(cfg) | {key: everything[key] for key in learning} | PROJECT.get(name, {})

    found = flat(to_cfg(config.model, head, CARD)) | learning

    different = {
        key: found.get(key)
        for key in expected.keys() | found.keys()
        if plain(expected.get(key)) != plain(found.get(key))
    }
    assert different == {key: value for names, key, value, _ in DIFFERENCES if name in names}


def test_the_words_of_the_appendix_put_the_norm_after_the_pooling() -> None:
    cfg = to_cfg(PRESETS["voc_c4"].model.derive(head_norm="after_pooling"), VOC, CARD)

    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeadsPooledNorm"


def test_keypoints_of_a_data_set_without_any_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.keypoints is true.*no keypoints"):
        to_cfg(PRESETS["keypoints"].model, Head(1), CARD)


def training(config: DetectionConfig) -> dict[str, Any]:
    """What a config says of learning and of how images are shown, in detectron2's words."""
    schedule, repeats = config.schedule, config.repeat_threshold
    return {
        "SOLVER.LR_SCHEDULER_NAME": {"step": "WarmupMultiStepLR"}[schedule.kind],
        "SOLVER.MAX_ITER": config.iterations,
        "SOLVER.STEPS": tuple(round(drop * config.iterations) for drop in schedule.drops),
        "SOLVER.GAMMA": schedule.gamma,
        "SOLVER.WARMUP_ITERS": schedule.warmup,
        "SOLVER.WARMUP_FACTOR": schedule.warmup_factor,
        "SOLVER.IMS_PER_BATCH": config.batch_size,
        "SOLVER.BASE_LR": config.scaled_lr,
        "SOLVER.MOMENTUM": config.momentum,
        "SOLVER.WEIGHT_DECAY": config.weight_decay,
        "SOLVER.WEIGHT_DECAY_NORM": config.norm_weight_decay,
        "SOLVER.CLIP_GRADIENTS.ENABLED": config.clip is not None,
        "INPUT.MIN_SIZE_TRAIN": config.shorter_sides,
        "INPUT.MIN_SIZE_TEST": config.test_side,
        "INPUT.MAX_SIZE_TRAIN": config.longer_side,
        "INPUT.MAX_SIZE_TEST": config.longer_side,
        "INPUT.RANDOM_FLIP": {0.5: "horizontal"}[config.flip],
        "DATALOADER.ASPECT_RATIO_GROUPING": config.alike > 1,
        "DATALOADER.SAMPLER_TRAIN": f"{'RepeatFactor' if repeats else ''}TrainingSampler",
        "DATALOADER.REPEAT_THRESHOLD": repeats,
        "TEST.PRECISE_BN.ENABLED": config.precise_bn > 0,
        "TEST.PRECISE_BN.NUM_ITER": config.precise_bn,
    }


def flat(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What says of the model, by path, without the heads that it does not have."""
    absent = [
        f"MODEL.ROI_{part}_HEAD." for part in ("MASK", "KEYPOINT") if not cfg["MODEL"][f"{part}_ON"]
    ]
    return {
        path: value
        for path, value in leaves(cfg)
        if (path.startswith("MODEL.") or path in BESIDE)
        and path not in ELSEWHERE
        and not path.startswith(tuple(absent))
    }


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> Any:
    """A value without the difference of tuples and lists."""
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
