"""Small copies of the data sets, and backbones to start from."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.convert import STAGE as CONVERT
from components.core.main import execute
from tests.datasets.detection_world import write_world


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the stages' subprocesses: the number of threads changes the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout in a folder of its name."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted random initialisation, an artifact of its own stage."""
    folder = tmp_path_factory.mktemp("convert") / "backbone"
    config = json.dumps({"source": "random", "architecture": "resnet_digits"})
    execute(CONVERT, CONVERT.parse(["--config", config, "--output.backbone", str(folder)]))
    return folder
