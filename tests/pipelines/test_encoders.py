"""An encoder that is not the paper's goes through every stage, as a user's would."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from components.classification.features import STAGE as FEATURES
from components.classification.inaturalist import STAGE as FINE_TUNING
from components.classification.linear import STAGE as LINEAR
from components.classification.probe import STAGE as PROBE
from components.convert import STAGE as CONVERT
from components.core.main import execute
from components.core.manifest import read_manifest
from components.core.stage import Stage
from components.datasets.imagenet import digits as imagenet
from components.datasets.masks import digits as masks
from components.pretrain import STAGE as PRETRAIN
from components.rendering.config import DigitsConfig, PicturesConfig
from components.segmentation import STAGE as SEGMENTATION
from components.vision.architectures import RESNETS, Architecture, tensor_shapes
from components.vision.backbones import read_card

SMALL = DigitsConfig(
    train_scenes=64, val_scenes=20, pixels=32, pictures=PicturesConfig(pixels=64, train=20, val=20)
)


def run(stage: Stage[Any], folder: Path, inputs: dict[str, Path], **changes: Any) -> Path:
    """Run a stage's miniature with changes; data is mounted, artifacts are read."""
    config = stage.config().miniature().derive(**changes)
    outputs = {name: str(folder / stage.name / name) for name in stage.outputs}
    artifacts = {name: str(path) for name, path in inputs.items() if name != "data"}
    argv = stage.argv(config, artifacts, outputs, state=str(folder / stage.name / "state"))
    mount = ["--mount.data", str(inputs["data"])] if "data" in inputs else []
    if not stage.resumable:
        argv = argv[:-2]
    execute(stage, stage.parse([*argv[2:], *mount]))
    return folder / stage.name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet18"])
def test_another_encoder_is_pretrained_converted_and_transferred(
    architecture: Architecture, tmp_path: Path
) -> None:
    imagenet.write(SMALL, tmp_path / "images")
    masks.write(SMALL, tmp_path / "masks")
    images = {"data": tmp_path / "images"}
    pretrained = run(PRETRAIN, tmp_path, images, architecture=architecture, epochs=1, negatives=64)
    converted = run(
        CONVERT,
        tmp_path,
        {"checkpoint": pretrained / "encoder"},
        source="auto",
        architecture="auto",
    )
    backbone = converted / "backbone"
    assert read_card(backbone).architecture == architecture

    seen = {**images, "backbone": backbone}
    run(LINEAR, tmp_path, seen, epochs=1)
    tuned = run(FINE_TUNING, tmp_path, seen, epochs=1, dataset="imagenet")
    features = run(FEATURES, tmp_path, seen) / "features"
    run(PROBE, tmp_path, {"features": features})
    run(
        SEGMENTATION,
        tmp_path,
        {"data": tmp_path / "masks", "backbone": backbone},
        dataset="masks",
        iterations=1,
        evaluations=1,
    )

    assert read_manifest(features).facts["features"] == RESNETS[architecture].channels[-1]
    assert load_file(tuned / "model/encoder.safetensors").keys() == {*tensor_shapes(architecture)}
