"""A whole pre-training from JPEG files against its step alone: whether loading keeps up."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from components.pretrain.mechanisms import build_mechanism
from components.pretrain.train import _prepare
from components.training.images import rank_loader
from tests.benchmarks.gpu._measure import Clock, in_the_loop, row
from tests.benchmarks.gpu.pretraining import CASES, images, our_rate
from tests.datasets.readers import read_image_set

PICTURES = 3000
WORKERS = 15


def run() -> Iterator[dict[str, Any]]:
    """Measure; the ratio is the rate with loading over that without."""
    workers = max(1, min(WORKERS, (os.cpu_count() or 1) - 1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor() as pool:
            sizes = list(pool.map(partial(_write, folder), range(PICTURES), chunksize=50))
        pictures = read_image_set("images", folder, "train")
        for case, full in CASES.items():
            alone = our_rate(full, *images(full.batch_size))
            config = full.derive(lr=1e-4, loader={"workers": workers})
            loader = rank_loader(
                pictures, config.augmentation, config.loader, batch_size=config.batch_size, count=2
            )
            # The first batches come late: every worker makes one from nothing.
            whole = in_the_loop(
                build_mechanism(config, PICTURES),
                config,
                Clock(loader, skipped=int(4 * alone.per_second / config.batch_size), seconds=6),
                partial(_prepare, config, PICTURES),
            )
            result = row(
                f"pre-training from JPEGs, {case} / its step alone", whole, alone, 0.95, "pairs/s"
            )
            more = f"; {workers} workers, pictures of {sum(sizes) / len(sizes) / 1e3:.0f} kB"
            yield {**result, "detail": result["detail"] + more}
            del loader


def _write(folder: Path, number: int) -> int:
    """Write a picture of 500 × 375 pixels that is as large as a photograph; return its bytes."""
    generator = np.random.default_rng(number)
    noise = generator.integers(0, 256, (47, 63, 3)).astype(np.float32)
    pixels = cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC)
    pixels += generator.normal(0, 22, pixels.shape)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    path = folder / f"{number:05}.jpg"
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 87])
    return path.stat().st_size
