"""Small data sets and a backbone to classify with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.convert import STAGE as CONVERT
from components.core.main import execute
from components.datasets.imagenet import digits as imagenet
from components.datasets.inaturalist import digits as inaturalist
from components.rendering.config import DigitsConfig

SMALL = DigitsConfig(train_scenes=100, val_scenes=30, pixels=24)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the stages' subprocesses: the number of threads changes the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def imagenet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    imagenet.write(SMALL, folder)
    return folder


@pytest.fixture(scope="session")
def inaturalist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inaturalist")
    inaturalist.write(SMALL, folder)
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted random initialisation, an artifact of its own stage."""
    folder = tmp_path_factory.mktemp("convert") / "backbone"
    config = json.dumps({"source": "random", "architecture": "resnet_digits"})
    execute(CONVERT, CONVERT.parse(["--config", config, "--output.backbone", str(folder)]))
    return folder
