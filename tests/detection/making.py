"""Makes data to be memorised, and runs of the detection stages on it."""

import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from components.core.main import execute
from components.core.metrics import Metrics, read_metrics
from components.core.stage import Mount, Source, Stage, load_stage
from components.detection import cityscapes, coco, densepose, keypoints, lvis, voc
from components.detection.config import DetectionConfig
from components.rendering.config import DigitsConfig, PicturesConfig
from tests.datasets import detection_world
from tests.programs import Program

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
MEMORY = {"coco": 20, "lvis": 20, "voc": 20, "cityscapes": 20, "densepose": 10}
"""Pictures that a detector learns by heart; surfaces are learned last, and so of fewer."""
LAYOUTS = {**detection_world.LAYOUTS, "densepose": detection_world.LAYOUTS["coco"]}
LIBRARIES = (
    "torchvision",
    pytest.param(
        "detectron2",
        marks=pytest.mark.skipif(
            find_spec("detectron2") is None, reason="needs detectron2: make detectron2"
        ),
    ),
)


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
    """Write `MEMORY` pictures of each task's data, for training and validation alike."""
    # Cityscapes and DensePose have half as many pictures as COCO.
    sizes = MEMORY | {name: 2 * MEMORY[name] for name in ("cityscapes", "densepose")}
    for name, size in sizes.items():
        (folder / name).mkdir()
        pictures = PicturesConfig(train=size, val=20, digits=(1, 2))
        LAYOUTS[name](DigitsConfig(pictures=pictures), folder / name)
    annotations = folder / "coco/annotations"
    for kind in ("instances", "person_keypoints"):
        shutil.copy(annotations / f"{kind}_train2017.json", annotations / f"{kind}_val2017.json")
    replace(folder / "coco/train2017", folder / "coco/val2017")
    _measure_densepose(folder / "densepose")
    _measure_lvis(folder / "lvis")
    _measure_voc(folder / "voc")
    for kind in ("leftImg8bit", "gtFine"):
        replace(folder / "cityscapes" / kind / "train", folder / "cityscapes" / kind / "val")
    return folder


def _measure_densepose(root: Path) -> None:
    """Measure on both parts of DensePose's training."""
    both: dict[str, Any] = {}
    for name in ("valminusminival", "train"):
        text = (root / f"annotations/densepose_{name}2014.json").read_text()
        part = json.loads(text)
        both = {
            key: both.get(key, []) + value if key in ("images", "annotations") else value
            for key, value in part.items()
        }
    for image in both["images"]:
        name = image["file_name"]
        folder = "train2014" if "train2014" in name else "val2014"
        image["file_name"] = f"again_{name}"
        shutil.copy(root / folder / name, root / "val2014" / f"again_{name}")
    (root / "annotations/densepose_minival2014.json").write_text(json.dumps(both))


def _measure_lvis(root: Path) -> None:
    """Measure on copies of the training pictures."""
    text = (root / "lvis_v0.5_train.json").read_text()
    (root / "lvis_v0.5_val.json").write_text(text.replace('"train2017/', '"val2017/'))
    replace(root / "train2017", root / "val2017")


def _measure_voc(root: Path) -> None:
    """Train on the 10 pictures of 2007 and 10 of 2012, and make copies of all 2007's test."""
    old, new = (root / f"VOC{year}" for year in ("2007", "2012"))
    lists = [year / "ImageSets/Main" for year in (old, new)]
    shutil.copy(lists[1] / "train.txt", lists[1] / "trainval.txt")
    names = []
    for year, own in ((old, lists[0]), (new, lists[1])):
        for name in (own / "trainval.txt").read_text().split():
            names.append(f"again_{name}")
            for kind, ending in (("Annotations", "xml"), ("JPEGImages", "jpg")):
                shutil.copy(year / f"{kind}/{name}.{ending}", old / f"{kind}/again_{name}.{ending}")
    (lists[0] / "test.txt").write_text("".join(f"{name}\n" for name in names))
    shown = "".join((old / f"Annotations/{name}.xml").read_text() for name in names)
    for path in (path for one in lists for path in one.glob("*_trainval.txt")):
        if f"<name>{path.name.removesuffix('_trainval.txt')}<" not in shown:
            path.unlink()  # no picture shows this class


def replace(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def arguments(
    config: DetectionConfig, data: Path, backbone: Path, folder: Path, **changes: Any
) -> tuple[Stage[Any], list[str]]:
    """A stage and its command line after `python`, with a config in miniature."""
    stage = load_stage(f"detection.{config.dataset}")
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
    config = stage.config(dataset=task, test_batch=10, loader={"workers": 0})
    sources: dict[str, Source] = {name: str(path) for name, path in inputs.items()}
    argv = stage.argv(
        config, {**sources, "data": Mount(str(data))}, {"metrics": str(folder / "again")}
    )
    execute(stage, stage.parse(argv[2:]))
    return read_metrics(folder / "again")


def start(
    config: DetectionConfig, data: Path, backbone: Path, folder: Path, **changes: Any
) -> Program:
    """Start a stage's real command."""
    _, argv = arguments(config, data, backbone, folder, **changes)
    return Program(argv)
