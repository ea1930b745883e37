"""Makes tiny data sets and runs of the segmentation stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.main import execute
from components.core.manifest import read_manifest
from components.core.metrics import Metrics, read_metrics
from components.segmentation import STAGE, SegmentationConfig, cityscapes, voc
from components.segmentation.evaluate import STAGE as EVALUATE
from pipelines.recipes.ade20k import fcn
from tests.programs import Program

PRESETS: dict[str, SegmentationConfig] = {
    "voc": voc(),
    "cityscapes": cityscapes(),
    "ade20k": fcn(),
}
TINY: dict[str, Any] = {
    "batch_size": 4,
    "lr_batch": 4,
    "channels": 16,
    "crop": 49,
    "iterations": 2,
    "checkpoint_seconds": 1000,
}


@dataclass(frozen=True)
class Run:
    """The outputs of one run of a stage."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def metrics(self) -> Metrics:
        return read_metrics(self.folder / "metrics")

    def hashes(self, port: str) -> dict[str, str]:
        """SHA-256 of what a port holds, from its manifest."""
        files = read_manifest(self.folder / port).files
        return {name: entry.sha256 for name, entry in files.items()}


def tiny(dataset: str, **changes: Any) -> SegmentationConfig:
    return PRESETS[dataset].miniature().derive(**{**TINY, **changes})


def arguments(config: SegmentationConfig, data: Path, backbone: Path, folder: Path) -> list[str]:
    """The command line of the stage after `python`."""
    outputs = {name: str(folder / name) for name in STAGE.outputs}
    argv = STAGE.argv(config, {"backbone": str(backbone)}, outputs, state=str(folder / "state"))
    return [*argv, "--mount.data", str(data)]


def run_here(config: SegmentationConfig, data: Path, backbone: Path, folder: Path) -> Run:
    """Run the stage in this process."""
    execute(STAGE, STAGE.parse(arguments(config, data, backbone, folder)[2:]))
    return Run(folder)


def start(config: SegmentationConfig, data: Path, backbone: Path, folder: Path) -> Program:
    """Start the stage's real command."""
    return Program(arguments(config, data, backbone, folder))


def evaluate(dataset: str, data: Path, folder: Path, *sources: str) -> Metrics:
    """Run the evaluation on its own; `sources` are further options."""
    config = EVALUATE.config(dataset=dataset).derive(loader={"workers": 0})
    argv = EVALUATE.argv(config, {}, {"metrics": str(folder)})
    execute(EVALUATE, EVALUATE.parse([*argv[2:], "--mount.data", str(data), *sources]))
    return read_metrics(folder)
