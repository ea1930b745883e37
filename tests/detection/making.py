"""Makes data to be memorised, and runs of the detection stages on it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.main import execute
from components.core.metrics import Metrics, read_metrics
from components.core.stage import Mount, Source, Stage, load_stage
from components.detection import cityscapes, coco, densepose, keypoints, lvis, voc
from components.detection.config import DetectionConfig
from components.digits import DigitsConfig, PicturesConfig
from tests.vision.detection_world import write_world

PRESETS: dict[str, DetectionConfig] = {
    "fpn_1x": coco.mask_rcnn_fpn(),
    "fpn_2x": coco.mask_rcnn_fpn("2x"),
    "fpn_6x": coco.mask_rcnn_fpn("6x"),
    "c4_1x": coco.mask_rcnn_c4(),
    "c4_2x": coco.mask_rcnn_c4("2x"),
    "voc_c4": voc.faster_rcnn_c4(),
    "voc_dc5": voc.faster_rcnn_dc5(),
    "keypoints": keypoints.keypoint_rcnn(),
    "densepose": densepose.densepose_rcnn(),
    "densepose_deeplab": densepose.densepose_rcnn("deeplab"),
    "lvis_frozen_1x": lvis.mask_rcnn("frozen"),
    "lvis_frozen_2x": lvis.mask_rcnn("frozen", "2x"),
    "lvis_tuned_1x": lvis.mask_rcnn("tuned"),
    "lvis_tuned_2x": lvis.mask_rcnn("tuned", "2x"),
    "cityscapes": cityscapes.mask_rcnn(),
}
"""All that recipes train with, up to the seed, and DensePose's newer head."""
CONFIGS: dict[str, DetectionConfig] = {
    "coco": PRESETS["fpn_1x"],
    "voc": PRESETS["voc_c4"],
    "keypoints": PRESETS["keypoints"],
    "densepose": PRESETS["densepose"],
    "lvis": PRESETS["lvis_tuned_1x"],
    "cityscapes": PRESETS["cityscapes"],
}
"""One of each task."""
DATA = {"keypoints": "coco", "densepose": "coco"}
"""Folder of a task's data, if it is not called like the task."""


@dataclass(frozen=True)
class Run:
    """The outputs of one run of a stage."""

    folder: Path

    @property
    def metrics(self) -> Metrics:
        return read_metrics(self.folder / "metrics")

    @property
    def per_class(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            (self.folder / "metrics/per_class.json").read_text()
        )
        return rows


def write_memory(folder: Path) -> Path:
    """Write 24 pictures of each data set that are for training and validation alike."""
    write_world(folder, DigitsConfig(pictures=PicturesConfig(train=24, val=20, digits=(1, 2))))
    annotations = folder / "coco/annotations"
    for kind in ("instances", "person_keypoints"):
        shutil.copy(annotations / f"{kind}_train2017.json", annotations / f"{kind}_val2017.json")
    replace(folder / "coco/train2017", folder / "coco/val2017")
    shutil.copy(
        annotations / "densepose_train2014.json", annotations / "densepose_minival2014.json"
    )
    shutil.copytree(folder / "coco/train2014", folder / "coco/val2014", dirs_exist_ok=True)
    shutil.copy(folder / "lvis/lvis_v0.5_train.json", folder / "lvis/lvis_v0.5_val.json")
    lists = folder / "voc/VOC2007/ImageSets/Main"
    shutil.copy(lists / "trainval.txt", lists / "test.txt")
    for kind in ("leftImg8bit", "gtFine"):
        replace(folder / "cityscapes" / kind / "train", folder / "cityscapes" / kind / "val")
    return folder


def replace(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def arguments(
    config: DetectionConfig, data: Path, backbone: Path, folder: Path, **changes: Any
) -> tuple[Stage[Any], list[str]]:
    """A stage and its command line after `python`, with a config in miniature."""
    stage = load_stage(f"detection.{config.task}")
    outputs = {name: str(folder / name) for name in stage.outputs}
    inputs: dict[str, Source] = {"backbone": str(backbone), "data": Mount(str(data))}
    changed = config.miniature().derive(**changes)
    return stage, stage.argv(changed, inputs, outputs, state=str(folder / "state"))


def run_here(
    config: DetectionConfig, data: Path, backbone: Path, folder: Path, **changes: Any
) -> Run:
    """Run a stage in this process."""
    stage, argv = arguments(config, data, backbone, folder, **changes)
    execute(stage, stage.parse(argv[2:]))
    return Run(folder)


def evaluate(folder: Path, data: Path, task: str, **inputs: Path) -> Metrics:
    """Run the stage `detection.evaluate` in this process."""
    stage = load_stage("detection.evaluate")
    config = stage.config(task=task, test_batch=10, loader={"workers": 0})
    sources: dict[str, Source] = {name: str(path) for name, path in inputs.items()}
    argv = stage.argv(
        config, {**sources, "data": Mount(str(data))}, {"metrics": str(folder / "again")}
    )
    execute(stage, stage.parse(argv[2:]))
    return read_metrics(folder / "again")


def start(
    config: DetectionConfig, data: Path, backbone: Path, folder: Path, **changes: Any
) -> "subprocess.Popen[str]":
    """Start a stage's real command."""
    _, argv = arguments(config, data, backbone, folder, **changes)
    return subprocess.Popen(
        [sys.executable, *argv],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
