"""Small data sets to test on."""

from pathlib import Path

import pytest

from components.datasets.imagenet import digits as imagenet
from components.datasets.inaturalist import digits as inaturalist
from components.rendering.config import DigitsConfig
from tests.datasets.detection_world import write_world


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """A small data set in ImageNet's layout."""
    imagenet.write(DigitsConfig(train_scenes=60, val_scenes=30), tmp_path)
    return tmp_path


@pytest.fixture
def inaturalist_folder(tmp_path: Path) -> Path:
    """A small data set in iNaturalist 2018's layout."""
    inaturalist.write(DigitsConfig(train_scenes=80, val_scenes=30), tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every detection layout, small; not to be changed."""
    return write_world(tmp_path_factory.mktemp("world"))
