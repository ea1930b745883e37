"""Photographs and small data sets to test on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from components.datasets.imagenet import digits as imagenet
from components.datasets.inaturalist import digits as inaturalist
from components.rendering.config import DigitsConfig
from components.vision.decoding import Pixels
from tests.vision.detection_world import write_world


@pytest.fixture(scope="session")
def photographs() -> list[Pixels]:
    """Two photographs, (427, 640, 3)."""
    return [np.array(image) for image in load_sample_images().images]


@pytest.fixture(scope="session")
def patches(photographs: list[Pixels]) -> list[Pixels]:
    """Pieces of photographs that differ in colour and brightness, (64, 64, 3)."""
    small = [cv2.resize(photograph, (320, 256)) for photograph in photographs]
    return [
        np.ascontiguousarray(image[top : top + 64, left : left + 64])
        for image in small
        for top in range(0, 256, 64)
        for left in range(0, 320, 64)
    ]


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
