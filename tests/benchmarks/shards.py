"""Images from shards on a disk, against the same images in files."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.datasets.loading import image_reader
from components.datasets.packing import pack
from components.vision.config import LoaderConfig, moco_v1
from components.vision.loading import make_loader
from tests.benchmarks._timing import compare

IMAGES, WIDTH, HEIGHT = 600, 500, 375  # about as large as ImageNet's are


def run() -> list[dict[str, Any]]:
    """Measure batches of pre-training on one core; the ratio is the files' time over ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "files/train")
        pack("images", folder / "files", folder / "shards", shard=100)
        return [
            compare(
                "pairs of views from shards on a disk / from files",
                partial(_load, folder / "shards"),
                partial(_load, folder / "files"),
                goal=0.95,
            )
        ]


def _load(root: Path) -> None:
    images = image_reader("images").read(root, "train")
    loader = make_loader(images, moco_v1(), LoaderConfig(workers=0), batch_size=50, views=2)
    assert sum(len(batch.labels) for batch in loader.epoch()) == IMAGES


def _write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(IMAGES):
        small = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=90)
