"""Small segmentation data sets, and a backbone to segment with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.convert import STAGE as CONVERT
from components.core.main import execute
from components.datasets.ade20k import digits as ade20k
from components.datasets.cityscapes import digits as cityscapes
from components.datasets.voc import digits as voc
from components.rendering.config import DigitsConfig, PicturesConfig

SMALL = DigitsConfig(pictures=PicturesConfig(pixels=64, train=48, val=20))
"""24 training and 10 validation pictures of each data set."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the stages' subprocesses: the number of threads changes the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def voc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    voc.write(SMALL, folder)
    return folder


@pytest.fixture(scope="session")
def cityscapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cityscapes")
    cityscapes.write(SMALL, folder)
    return folder


@pytest.fixture(scope="session")
def ade20k_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ade20k")
    ade20k.write(SMALL, folder)
    return folder


def converted(folder: Path, architecture: str) -> Path:
    """Make the artifact of a random initialisation."""
    config = json.dumps({"source": "random", "architecture": architecture})
    execute(CONVERT, CONVERT.parse(["--config", config, "--output.backbone", str(folder)]))
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("convert") / "backbone", "resnet_digits")


@pytest.fixture(scope="session")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("convert") / "backbone", "resnet50")
