"""Frozen transfer: features against a plain loop, the linear column against scikit-learn."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from components.classification.features import STAGE as FEATURES
from components.classification.logistic import fit_regression
from components.classification.stored import read_features
from components.convert import STAGE as CONVERT
from components.core.main import execute
from components.vision.config import IMAGENET_MEAN, IMAGENET_STD
from tests.benchmarks._timing import compare, ratio, seconds

IMAGES, WIDTH, HEIGHT = 96, 500, 375  # about as large as ImageNet's are
SAMPLES, FEATURES_EACH, CLASSES = 10_000, 512, 100


def run() -> list[dict[str, Any]]:
    """Measure on all cores; the ratio is the peer's time over ours, so more than 1 is faster."""
    return [*_regressions(), *_extraction("resnet18"), *_extraction("resnet50")]


def _regressions() -> list[dict[str, Any]]:
    """Fit the same samples with a strong and a weak penalty, until gradients are small."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    centres = torch.randn(CLASSES, FEATURES_EACH, generator=generator)
    noise = torch.randn(SAMPLES, FEATURES_EACH, generator=generator)
    samples = 0.15 * centres[labels] + noise
    samples /= samples.square().mean().sqrt()
    rows = []
    for l2 in (0.01, 0.0001):
        peer = LogisticRegression(C=1 / (SAMPLES * l2), tol=1e-5, max_iter=1000)
        fitted: dict[str, Any] = {}

        def ours(l2: float = l2, fitted: dict[str, Any] = fitted) -> None:
            fitted["ours"] = fit_regression(samples, labels, CLASSES, l2)

        def theirs(peer: LogisticRegression = peer, fitted: dict[str, Any] = fitted) -> None:
            fitted["theirs"] = peer.fit(samples.numpy(), labels.numpy())

        row = compare(
            f"logistic regression, {SAMPLES:,} × {FEATURES_EACH}, {CLASSES} classes, L2 {l2:g} / "
            "scikit-learn's",
            ours,
            theirs,
            goal=1.0,
            turns=3,
        )
        scores = torch.from_numpy(peer.decision_function(samples.numpy())).float()
        penalty = l2 / 2 * float((peer.coef_**2).sum())
        loss = float(torch.nn.functional.cross_entropy(scores, labels)) + penalty
        row["detail"] += f"; minimum {fitted['ours'].loss:.5f} against {loss:.5f}"
        rows.append(row)
    return rows


def _extraction(architecture: str) -> list[dict[str, Any]]:
    """Extract features of JPEG files, whole: reading, decoding, one view, forward."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder / "data")
        config = json.dumps({"source": "random", "architecture": architecture})
        output = ["--output.backbone", str(folder / "backbone")]
        execute(CONVERT, CONVERT.parse(["--config", config, *output]))
        model = torchvision.models.get_model(architecture)
        model.fc = torch.nn.Identity()
        pairs = []
        for turn in range(3):
            ours = seconds(partial(_ours, folder, turn))
            theirs = seconds(partial(_theirs, folder, model.eval()))
            pairs.append((ours, theirs))
        row = ratio(
            f"features of {architecture}, from JPEG files / a plain torch loop", pairs, goal=1.0
        )
        rate = IMAGES / min(ours for ours, _ in pairs)
        return [{**row, "detail": f"{row['detail']}; {rate:.1f} images/s"}]


def _ours(folder: Path, turn: int) -> None:
    config = FEATURES.config().derive(loader={"workers": 0}, batch_size=32)
    inputs = {"backbone": str(folder / "backbone")}
    output = folder / f"features{turn}"
    argv = FEATURES.argv(config, inputs, {"features": str(output)})
    execute(FEATURES, FEATURES.parse([*argv[2:], "--mount.data", str(folder / "data")]))
    assert len(read_features(output, "train").labels) == IMAGES


@torch.inference_mode()
def _theirs(folder: Path, model: torch.nn.Module) -> Tensor:
    view = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    features = []
    for split in ("train", "val"):
        loader = DataLoader(ImageFolder(str(folder / "data" / split), view), batch_size=32)
        features += [model(images) for images, _ in loader]
    return torch.cat(features)


def _write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 2)):
        for number in range(count):
            place = folder / split / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            small = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
            image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            image.save(place / f"{number}.JPEG", quality=90)
