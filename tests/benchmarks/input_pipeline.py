"""Input pipeline: pairs of MoCo v1 views a second on one core, against the released transforms."""

import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

from components.vision.config import IMAGENET_MEAN, IMAGENET_STD, AugmentationConfig, moco_v1
from components.vision.loading import ViewDataset
from tests.datasets.readers import read_images

IMAGES = 16
ROUNDS = 7
BATCH = 16


def run() -> list[dict[str, Any]]:
    """Measure both ways of ours and the released one in turns, and compare their rates."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            return _compare(Path(name))
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)


def _compare(folder: Path) -> list[dict[str, Any]]:
    write_photographs(folder)
    ways = {
        "released": released_pairs(folder),
        "loader": our_pairs(folder, moco_v1().derive(colour="loader")),
        "device": our_pairs(folder, moco_v1().derive(colour="device")),
    }
    # In turns, so that whatever else the machine does falls on all of them.
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name, make_pairs in ways.items():
            started = time.process_time()
            made = make_pairs(turn)
            rates[name].append(made / (time.process_time() - started))
    ours = {name: statistics.median(values) for name, values in rates.items()}
    pairs = {name: f"{rate:.0f} pairs/s" for name, rate in ours.items()}
    return [
        {
            "name": "input pipeline, colour in the loader",
            "ratio": ours["loader"] / ours["released"],
            "goal": 2.5,
            "detail": f"{pairs['loader']} a core against {pairs['released']} of main_moco.py's "
            "transforms; 500×375 JPEG, MoCo v1, normalisation of ours is on the device",
        },
        {
            "name": "input pipeline, colour on the device",
            "ratio": ours["device"] / ours["released"],
            "goal": 5.0,
            "detail": f"{pairs['device']} a core against {pairs['released']} of main_moco.py's "
            "transforms; 500×375 JPEG, MoCo v1, colour and normalisation of ours on the device",
        },
    ]


def write_photographs(folder: Path, size: tuple[int, int] = (500, 375)) -> None:
    """Write JPEGs of a width and height, cut from scikit-learn's two photographs."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(IMAGES):
        photograph = photographs[number % len(photographs)]
        shift = 4 * (number // len(photographs))
        cut = photograph.crop((shift, shift, photograph.width - shift, photograph.height - shift))
        cut.resize(size, Image.Resampling.LANCZOS).save(folder / f"{number:02d}.jpg", quality=90)


def our_pairs(folder: Path, augmentation: AugmentationConfig) -> Callable[[int], int]:
    """Return what makes all pairs of an epoch by our data set, batch by batch."""
    dataset = ViewDataset(read_images(folder), augmentation, views=2)

    def make_pairs(epoch: int) -> int:
        for first in range(0, len(dataset), BATCH):
            indices = range(first, min(first + BATCH, len(dataset)))
            dataset.__getitems__([(epoch, index) for index in indices])
        return len(dataset)

    return make_pairs


def released_pairs(folder: Path) -> Callable[[int], int]:
    """Return what makes all pairs by the transforms of main_moco.py over Pillow."""
    augmentation = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
            transforms.RandomGrayscale(p=0.2),
            transforms.ColorJitter(0.4, 0.4, 0.4, 0.4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        ]
    )
    files = sorted(folder.iterdir())

    def make_pairs(epoch: int) -> int:
        random.seed(epoch)
        torch.manual_seed(epoch)
        for first in range(0, len(files), BATCH):
            pairs = []
            for file in files[first : first + BATCH]:
                with Image.open(io.BytesIO(file.read_bytes())) as image:
                    pixels = image.convert("RGB")
                pairs.append([augmentation(pixels), augmentation(pixels)])
            torch.utils.data.default_collate(pairs)
        return len(files)

    return make_pairs
