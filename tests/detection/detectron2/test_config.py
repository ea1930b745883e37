"""The model of each task is the released one, but for what the paper does otherwise."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.detection.interface import Head
from components.detection.model import ModelConfig, RpnConfig
from components.vision.architectures import BackboneCard

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

C4 = ModelConfig(
    kind="c4",
    head_norm="before_pooling",
    pooling=14,
    rpn=RpnConfig(proposals_before=(12000, 6000), proposals=(2000, 1000)),
)
DC5 = C4.derive(kind="dc5", head_norm="none", masks=False, pooling=7, neck_channels=512)
FPN = ModelConfig()
KEYPOINTS = FPN.derive(masks=False, keypoints=True, rpn={"proposals": (1500, 1000)})
DENSEPOSE = FPN.derive(masks=False, surface="legacy", sampling=2)
LVIS = FPN.derive(score_threshold=1e-4, detections=300)

TASKS: Mapping[str, tuple[str, ModelConfig, Head]] = {
    "voc_c4": ("PascalVOC-Detection/faster_rcnn_R_50_C4", C4.derive(masks=False), Head(20)),
    "voc_dc5": ("Base-RCNN-DilatedC5", DC5, Head(20)),
    "coco_c4": ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", C4, Head(80)),
    "coco_fpn": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", FPN, Head(80)),
    "keypoints": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", KEYPOINTS, Head(1, 17)),
    "lvis": ("LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", LVIS, Head(1230)),
    "lvis_frozen": (
        "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
        LVIS.derive(backbone_norm="frozen", neck_norm=False),
        Head(1230),
    ),
    "cityscapes": ("Cityscapes/mask_rcnn_R_50_FPN", FPN, Head(8)),
    "densepose": ("Base-RCNN-FPN", DENSEPOSE, Head(1)),
    "densepose_deeplab": ("Base-RCNN-FPN", DENSEPOSE.derive(surface="deeplab"), Head(1)),
}
"""For each task what is released, of detectron2's own configs, and what is ours."""

DENSEPOSE_RELEASED = {
    "MODEL.ROI_HEADS.NAME": "DensePoseROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_DENSEPOSE_HEAD.NAME": "DensePoseV1ConvXHead",
    "MODEL.ROI_DENSEPOSE_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS": 2,
}
"""The DensePose project's configs are not installed with it; this is its base, Base-DensePose."""
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
    },
    "densepose_deeplab": {
        **DENSEPOSE_RELEASED,
        "MODEL.ROI_DENSEPOSE_HEAD.NAME": "DensePoseDeepLabHead",
    },
}
"""densepose_rcnn_R_50_FPN_s1x_legacy and densepose_rcnn_R_50_FPN_DL_s1x."""

EVERY = tuple(TASKS)
TUNED = tuple(name for name in EVERY if name != "lvis_frozen")
PYRAMIDS = tuple(name for name in TUNED if "c4" not in name and "dc5" not in name)
DIFFERENCES: tuple[tuple[tuple[str, ...], str, Any, str], ...] = (
    (EVERY, "INPUT.FORMAT", "RGB", "pre-training is RGB (Sec. 4); so the authors' configs"),
    (EVERY, "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], "the authors' configs"),
    (EVERY, "MODEL.PIXEL_STD", [58.395, 57.12, 57.375], "the authors' configs"),
    (EVERY, "MODEL.RESNETS.STRIDE_IN_1X1", False, "torchvision's ResNet; the authors' configs"),
    (EVERY, "MODEL.BACKBONE.FREEZE_AT", 0, "all layers are tuned, Sec. 4.2"),
    (TUNED, "MODEL.RESNETS.NORM", "BN", "tuned, Sec. 4.2; the loop synchronises it"),
    (PYRAMIDS, "MODEL.FPN.NORM", "BN", "batch norm in the pyramid, A.8 and A.2"),
    (("voc_c4", "coco_c4"), "MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtraNorm", "A.1 (ii)"),
    (("voc_dc5",), "MODEL.BACKBONE.NAME", "build_dilated_c5_backbone", "A.1 (i)"),
    (("voc_dc5",), "MODEL.DILATED_C5.OUT_CHANNELS", 512, "A.1 (i)"),
    (("voc_dc5",), "MODEL.DILATED_C5.NORM", "BN", "A.1 (i)"),
    (("voc_dc5",), "MODEL.RPN.IN_FEATURES", ["dilated_c5"], "A.1 (i)"),
    (("voc_dc5",), "MODEL.ROI_HEADS.IN_FEATURES", ["dilated_c5"], "A.1 (i)"),
    (("voc_dc5",), "MODEL.ROI_HEADS.NUM_CLASSES", 20, "VOC; the released config is COCO's"),
    (
        ("densepose", "densepose_deeplab"),
        "MODEL.ROI_HEADS.NAME",
        "SurfaceROIHeads",
        "DensePoseROIHeads, but for images without instances",
    ),
    (EVERY, "INPUT.MASK_FORMAT", "bitmask", "not the paper's: how masks reach the model here"),
)
"""Of which tasks, which value, what ours is, and why."""


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_the_released_one_but_for_what_the_paper_says(task: str) -> None:
    released, model, head = TASKS[task]
    cfg = get_cfg()
    if task in PROJECT:
        densepose = pytest.importorskip("densepose", reason="needs DensePose: make detectron2")
        densepose.add_densepose_head_config(cfg)
    cfg.merge_from_file(str(ZOO / f"{released}.yaml"))
    expected = flat(cfg) | PROJECT.get(task, {})

    found = flat(to_cfg(model, head, CARD))

    different = {
        key: found.get(key)
        for key in expected.keys() | found.keys()
        if plain(expected.get(key)) != plain(found.get(key))
    }
    assert different == {key: value for tasks, key, value, _ in DIFFERENCES if task in tasks}


def test_the_words_of_the_appendix_put_the_norm_after_the_pooling() -> None:
    cfg = to_cfg(C4.derive(head_norm="after_pooling"), Head(20), CARD)

    assert cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeadsPooledNorm"


def test_keypoints_of_a_data_set_without_any_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.keypoints is true.*no keypoints"):
        to_cfg(KEYPOINTS, Head(1), CARD)


@pytest.mark.parametrize(("field", "least"), [("neck_channels", 64), ("surface_channels", 32)])
@pytest.mark.parametrize("channels", [16, 100])
def test_channels_that_the_deeplab_head_cannot_group_are_refused(
    field: str, least: int, channels: int
) -> None:
    pytest.importorskip("densepose", reason="needs DensePose: make detectron2")
    model = DENSEPOSE.derive(surface="deeplab", **{field: channels})

    with pytest.raises(ConfigError, match=rf"{field} is {channels};.*multiple of 32 from {least}"):
        to_cfg(model, Head(1), CARD)


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
