"""Every stage once in miniature on a GPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from components.core.errors import DataError
from components.core.main import execute
from components.core.manifest import read_manifest
from components.core.metrics import read_metrics
from components.core.stage import Mount, load_stage
from components.detection.config import DetectionConfig
from tests.detection import making as detection
from tests.segmentation import making as segmentation

PRETRAIN: dict[str, Any] = {"epochs": 4, "checkpoint_seconds": 1000, "knn": {"every": 4}}


def run(stage_name: str, folder: Path, data: Path, backbone: Path | None, **changes: Any) -> Path:
    """Run a stage's miniature in this process."""
    stage = load_stage(stage_name)
    config = stage.config().miniature().derive(**changes)
    inputs: dict[str, Any] = {"data": Mount(str(data))}
    if backbone is not None:
        inputs["backbone"] = str(backbone)
    outputs = {name: str(folder / name) for name in stage.outputs}
    execute(
        stage, stage.parse(stage.argv(config, inputs, outputs, state=str(folder / "state"))[2:])
    )
    facts = read_manifest(folder / "metrics").facts
    assert facts["device"] == torch.cuda.get_device_name()
    assert read_metrics(folder / "metrics").details["precision"] == facts["precision"]
    return folder


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics/history.jsonl").open())
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("mechanism", ["moco", "end_to_end", "memory_bank"])
def test_pretrain(mechanism: str, tmp_path: Path, imagenet_folder: Path) -> None:
    run("pretrain", tmp_path, imagenet_folder, None, **PRETRAIN, mechanism=mechanism)
    metrics = read_metrics(tmp_path / "metrics")
    assert 0 <= metrics.values["knn_accuracy"] <= 100
    assert metrics.details["precision"] == "bf16"
    assert len(losses(tmp_path)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp32", "channels_last": False, "cuda_graph": False},
        {"precision": "fp32"},
        {"precision": "fp16"},
        {"precision": "bf16", "compile": True},
        {"precision": "bf16", "head": "mlp", "shuffle": "plain", "sub_batch": 8},
        {"deterministic": True},
    ],
    ids=str,
)
def test_pretrain_in_every_arithmetic(
    changes: dict[str, Any], tmp_path: Path, imagenet_folder: Path
) -> None:
    run("pretrain", tmp_path, imagenet_folder, None, **PRETRAIN, **changes)


@pytest.mark.parametrize("workers", [0, 2])
def test_pretrain_gets_round_a_corrupt_picture(
    workers: int, tmp_path: Path, imagenet_folder: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(imagenet_folder, data)
    broken = sorted((data / "train").rglob("*.JPEG"))[7]
    broken.write_bytes(broken.read_bytes()[:200])
    loader = {"workers": workers, "max_corrupt_fraction": 0.01}
    run("pretrain", tmp_path / "run", data, None, **PRETRAIN, loader=loader)
    corrupt: Any = read_metrics(tmp_path / "run/metrics").details["corrupt_images"]
    assert [image["file"] for image in corrupt] == [str(broken)]
    strict = {**loader, "max_corrupt_fraction": 0.0}
    for picture in sorted((data / "train").rglob("*.JPEG"))[20:24]:
        picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read, 0 are tolerated"):
        run("pretrain", tmp_path / "refused", data, None, **PRETRAIN, loader=strict)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("stage", ["linear", "imagenet"])
def test_classification(
    stage: str, precision: str, tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    changes = {"epochs": 12, "precision": precision, "lr": 1.0 if stage == "linear" else 0.03}
    run(f"classification.{stage}", tmp_path, imagenet_folder, backbone, **changes)
    found = losses(tmp_path)
    assert found[-1] < found[0]
    if stage == "linear":
        assert read_manifest(tmp_path / "model").facts["unmoved_encoder_tensors"]


@pytest.mark.parametrize("library", detection.LIBRARIES)
@pytest.mark.parametrize("task", detection.CONFIGS)
def test_detection(task: str, library: str, tmp_path: Path, world: Path, backbone: Path) -> None:
    config: DetectionConfig = detection.CONFIGS[task]
    data = world / detection.DATA.get(task, task)
    changes = {"iterations": 24, "evaluations": 1, "library": library, "precise_bn": 2}
    done = detection.run_here(config, data, backbone, tmp_path, **changes, log_every=1)
    assert done.metrics.details["precision"] == "bf16"
    assert done.metrics.details["channels_last"]
    found = losses(tmp_path)
    assert sum(found[-6:]) < sum(found[:6])
    again = detection.evaluate(tmp_path, data, task, model=tmp_path / "model", backbone=backbone)
    for name, value in done.metrics.values.items():
        assert again.values[name] == pytest.approx(value, abs=0.5, nan_ok=True), name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("library", detection.LIBRARIES)
def test_detection_in_other_precisions(
    precision: str, library: str, tmp_path: Path, world: Path, backbone: Path
) -> None:
    changes = {"iterations": 12, "evaluations": 1, "library": library, "precise_bn": 2}
    done = detection.run_here(
        detection.CONFIGS["coco"],
        world / "coco",
        backbone,
        tmp_path,
        **changes,
        precision=precision,
    )
    assert done.metrics.details["precision"] == precision


@pytest.mark.parametrize("dataset", ["voc", "cityscapes"])
def test_segmentation(dataset: str, tmp_path: Path, world: Path, backbone: Path) -> None:
    config = segmentation.tiny(dataset, iterations=30, log_every=1)
    done = segmentation.run_here(config, world / dataset, backbone, tmp_path)
    assert done.metrics.details["precision"] == "bf16"
    found = losses(tmp_path)
    assert sum(found[-5:]) < sum(found[:5])
    again = segmentation.evaluate(
        dataset, world / dataset, tmp_path / "again", f"--input.model={done.model}"
    )
    assert again.values["mIoU"] == pytest.approx(done.metrics.values["mIoU"], abs=0.2)


def test_segmentation_to_the_bit(tmp_path: Path, world: Path, backbone: Path) -> None:
    """The deterministic kernels are there for all that a step and an evaluation need."""
    config = segmentation.tiny("voc", iterations=14, deterministic=True, processes=1)
    ends = [
        segmentation.run_here(config, world / "voc", backbone, tmp_path / name).hashes("model")
        for name in ("one", "two")
    ]
    assert ends[0] == ends[1]
