"""Makes tiny digits data, backbones and runs of the classification stages."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.classification.config import ClassificationConfig
from components.core.main import execute
from components.core.manifest import Manifest, read_manifest
from components.core.metrics import Metrics, read_metrics
from components.core.stage import Stage
from tests.programs import Program

TINY: dict[str, Any] = {
    "batch_size": 20,
    "lr_batch": 20,
    "augmentation": {
        "crop": 24,
        "crop_area": [0.8, 1],
        "flip_probability": 0,
        "grayscale_probability": 0,
        "jitter_probability": 0,
    },
    "evaluation": {"resize": 24, "crop": 24},
    "loader": {"workers": 0, "cache": 16},
    "log_every": 1,
}


@dataclass(frozen=True)
class Run:
    """The outputs of one run of a stage."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def metrics_folder(self) -> Path:
        return self.folder / "metrics"

    @property
    def metrics(self) -> Metrics:
        return read_metrics(self.metrics_folder)

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.model)

    @property
    def per_class(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            (self.metrics_folder / "per_class.json").read_text()
        )
        return rows

    @property
    def predictions(self) -> list[dict[str, Any]]:
        lines = (self.metrics_folder / "predictions.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def weights(self) -> dict[str, str]:
        """SHA-256 of the weights, from the manifest."""
        files = self.manifest.files
        return {name: files[f"{name}.safetensors"].sha256 for name in ("encoder", "head")}


def arguments(
    stage: Stage[Any], data: Path, backbone: Path, folder: Path, **config: Any
) -> list[str]:
    """The command line of a stage after `python`, with a tiny config."""
    changed = stage.config().derive(**{**TINY, **config})
    assert isinstance(changed, ClassificationConfig)
    outputs = {name: str(folder / name) for name in stage.outputs}
    argv = stage.argv(changed, {"backbone": str(backbone)}, outputs, state=str(folder / "state"))
    return [*argv, "--mount.data", str(data)]


def run_here(stage: Stage[Any], data: Path, backbone: Path, folder: Path, **config: Any) -> Run:
    """Run a stage in this process."""
    execute(stage, stage.parse(arguments(stage, data, backbone, folder, **config)[2:]))
    return Run(folder)


def start(stage: Stage[Any], data: Path, backbone: Path, folder: Path, **config: Any) -> Program:
    """Start a stage's real command."""
    return Program(arguments(stage, data, backbone, folder, **config))
