"""The configs say what the paper and its released code say, and each builds and takes a step."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.convert import STAGE as CONVERT
from components.core.config import not_installed
from components.core.main import execute
from components.core.stage import load_stage
from components.datasets.loading import detection_reader
from components.detection import cityscapes, coco, lvis, voc
from components.detection.data import test_loader, training_loader
from components.detection.libraries import resolve
from components.detection.libraries.building import build_detector
from components.detection.train import head_of
from components.training.schedule import lr_factor
from tests.detection.making import DATA, PRESETS

DROPS = {  # steps from which the rate is a tenth, and the number of steps
    "fpn_1x": (60_000, 80_000, 90_000),
    "fpn_2x": (120_000, 160_000, 180_000),
    "fpn_6x": (480_000, 520_000, 540_000),
    "c4_1x": (60_000, 80_000, 90_000),
    "c4_2x": (120_000, 160_000, 180_000),
    "voc_c4": (18_000, 22_000, 24_000),
    "voc_dc5": (18_000, 22_000, 24_000),
    "keypoints": (120_000, 160_000, 180_000),
    "densepose": (100_000, 120_000, 130_000),
    "densepose_deeplab": (100_000, 120_000, 130_000),
    "lvis_frozen_1x": (60_000, 80_000, 90_000),
    "lvis_frozen_2x": (120_000, 160_000, 180_000),
    "lvis_tuned_1x": (60_000, 80_000, 90_000),
    "lvis_tuned_2x": (120_000, 160_000, 180_000),
    "cityscapes": (18_000, 24_000),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_rate_falls_where_the_paper_says(name: str) -> None:
    config = PRESETS[name]
    *drops, iterations = DROPS[name]
    assert config.iterations == iterations

    def factor(step: int) -> float:
        return lr_factor(config.schedule, step, iterations, 7_000)

    for place, drop in enumerate(drops):
        assert factor(drop - 1) == pytest.approx(0.1**place)
        assert factor(drop) == pytest.approx(0.1 ** (place + 1))
    assert factor(config.schedule.warmup) == 1
    assert factor(0) == config.schedule.warmup_factor
    assert config.schedule.warmup == (100 if config.dataset == "voc" else 1000)


def test_batches_rates_and_norm_are_the_released_ones() -> None:
    for name, config in PRESETS.items():
        batch, rate = (8, 0.01) if name == "cityscapes" else (16, 0.02)
        rate = {"densepose": 0.002, "densepose_deeplab": 0.01}.get(name, rate)
        assert config.batch_size == batch
        assert config.scaled_lr == pytest.approx(rate)
        assert (config.weight_decay, config.norm_weight_decay, config.momentum) == (1e-4, 0, 0.9)
        frozen = name.startswith("lvis_frozen")
        assert config.model.backbone_norm == ("frozen" if frozen else "tuned")
        assert config.precise_bn == 200
        neck = config.model.kind != "c4" and not frozen
        assert config.model.neck_norm == neck
        c4 = config.model.kind == "c4"
        assert config.model.head_norm == ("before_pooling" if c4 else "none")
    assert coco.mask_rcnn_fpn().shorter_sides == (640, 672, 704, 736, 768, 800)
    assert voc.faster_rcnn_dc5().shorter_sides[0] == 480
    assert (cityscapes.mask_rcnn().test_side, cityscapes.mask_rcnn().longer_side) == (1024, 2048)
    rare = lvis.mask_rcnn()
    assert rare.repeat_threshold == 0.001
    assert (rare.model.detections, rare.model.score_threshold) == (300, 1e-4)
    assert voc.faster_rcnn_dc5().model.neck_channels == 512


@pytest.mark.parametrize("name", PRESETS)
def test_the_miniature_is_the_same_experiment(name: str) -> None:
    config = PRESETS[name]
    small = config.miniature()
    assert type(small) is type(config)
    assert small.schedule.drops == config.schedule.drops
    for field in ("kind", "backbone_norm", "neck_norm", "head_norm", "masks", "surface"):
        assert getattr(small.model, field) == getattr(config.model, field)
    assert (small.weight_decay, small.momentum) == (config.weight_decay, config.momentum)
    assert small.repeat_threshold >= config.repeat_threshold
    assert small.derive(seed=3).seed == 3


def test_gpu_hours_are_those_of_published_rates() -> None:
    assert coco.mask_rcnn_fpn().gpu_hours() == pytest.approx(90_000 * 0.345 * 8 / 3600)
    frozen = lvis.mask_rcnn("frozen").gpu_hours()
    assert frozen == pytest.approx(90_000 * 0.292 * 8 / 3600)
    assert coco.mask_rcnn_fpn("6x").gpu_hours() == pytest.approx(6 * 69, rel=0.01)
    half = coco.mask_rcnn_fpn().derive(batch_size=8).gpu_hours()
    assert half == pytest.approx(90_000 * 0.345 * 8 / 3600 / 2)


@pytest.mark.parametrize(
    "name", ["coco", "voc", "keypoints", "densepose", "lvis", "cityscapes", "evaluate"]
)
def test_the_help_names_every_field_of_the_config(name: str) -> None:
    stage = load_stage(f"detection.{name}")
    text = stage.help()
    for field in stage.config.model_fields:
        assert f"  {field}" in text


def test_the_declarations_import_no_torch() -> None:
    tasks = ("coco", "voc", "keypoints", "densepose", "lvis", "cityscapes", "evaluate")
    modules = ", ".join(f"components.detection.{name}" for name in tasks)
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give random backbones by architecture, each converted once."""
    base = tmp_path_factory.mktemp("convert")

    @functools.cache
    def make(architecture: str) -> Path:
        config = json.dumps({"source": "random", "architecture": architecture})
        folder = base / architecture
        execute(CONVERT, CONVERT.parse(["--config", config, "--output.backbone", str(folder)]))
        return folder

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        *((name, "resnet50") for name in PRESETS if not name.endswith(("_2x", "_6x"))),
        *((name, "resnet18") for name in ("fpn_1x", "c4_1x", "voc_dc5", "keypoints", "densepose")),
        ("fpn_1x", "resnext50_32x4d"),
    ],
)
def test_the_full_model_takes_a_step_and_predicts(
    name: str, architecture: str, world: Path, backbones: Callable[[str], Path]
) -> None:
    config = PRESETS[name]
    if lacking := not_installed(config):
        pytest.skip(f"the model needs {' and '.join(lacking)}: make detectron2")
    # Small images and few regions; the model has all its layers at all their widths.
    regions = {"proposals_before": (64, 16), "proposals": (32, 8)}
    model = config.model.model_dump(mode="json")
    model |= {"rois": 8, "detections": 4, "rpn": {**model["rpn"], **regions}}
    config = config.derive(
        batch_size=1,
        shorter_sides=(96,),
        test_side=96,
        longer_side=128,
        model=model,
        loader={"workers": 0},
    )
    root = world / DATA.get(config.dataset, config.dataset)
    training, validation = detection_reader(config.dataset).read_both(root)
    batch = next(iter(training_loader(training, config, root).epoch(0))).columns
    torch.manual_seed(0)
    head = head_of(config, training)
    library = resolve(config.library, config.model)
    detector = build_detector(library, config.model, backbones(architecture), head)
    loss, parts = detector.train()(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss.item() == pytest.approx(sum(one.item() for one in parts.values()), rel=1e-4)
    moved = [one for one in detector.parameters() if one.grad is not None and one.grad.any()]
    assert len(moved) > 50  # FREEZE_AT 0: the stem learns too
    images = next(iter(test_loader(validation, config).epoch(0))).columns
    with torch.no_grad():
        found = detector.eval().predict(images)[0]
    assert len(found) <= 4
    assert (found.masks is not None) == config.model.masks
    assert (found.keypoints is not None) == config.model.keypoints
    assert (found.surfaces is not None) == (config.model.surface != "none")
