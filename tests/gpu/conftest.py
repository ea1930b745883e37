"""Tests that need a GPU: `make test-gpu`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from components.convert import STAGE as CONVERT
from components.core.main import execute
from components.datasets.imagenet import digits as imagenet
from components.rendering.config import DigitsConfig
from tests.datasets.detection_world import write_world

HERE = Path(__file__).parent
SMALL = DigitsConfig(train_scenes=128, val_scenes=40)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA)")
            )


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Undo what a training chooses for its whole process, and give its memory back."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def imagenet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    imagenet.write(SMALL, folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout for detection and segmentation in a folder of its name."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted random initialisation."""
    folder = tmp_path_factory.mktemp("convert") / "backbone"
    config = json.dumps({"source": "random", "architecture": "resnet_digits"})
    execute(CONVERT, CONVERT.parse(["--config", config, "--output.backbone", str(folder)]))
    return folder
