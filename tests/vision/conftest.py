"""Photographs to test on."""

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from components.vision.decoding import Pixels
from tests.core.conftest import toxiproxy
from tests.datasets.conftest import imagenet_folder

__all__ = ["imagenet_folder", "toxiproxy"]


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
