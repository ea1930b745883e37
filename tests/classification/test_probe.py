"""Stored features, and what is learned from them: against scikit-learn and plain loops."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from components.classification.features import STAGE as FEATURES
from components.classification.linear import STAGE as LINEAR
from components.classification.logistic import fit_regression
from components.classification.probe import STAGE as PROBE
from components.classification.stored import read_features
from components.core.errors import DataError
from components.core.main import execute
from components.core.manifest import read_manifest
from components.core.metrics import read_metrics
from components.datasets.packing import pack
from components.vision.backbones import load_backbone
from components.vision.config import EvaluationConfig, LoaderConfig
from components.vision.device import finish_views
from components.vision.loading import make_loader
from tests.classification.making import run_here
from tests.datasets.readers import read_image_set
from tests.servers.minio import MinioServer

EVALUATION = EvaluationConfig(resize=24, crop=24)
close = torch.testing.assert_close


def extract(data: str | Path, backbone: Path, folder: Path, **config: Any) -> Path:
    """Run the stage `features` on a mounted folder, or on what is behind a URL."""
    changed = FEATURES.config().derive(
        evaluation=EVALUATION.model_dump(mode="json"), loader={"workers": 0}, **config
    )
    argv = FEATURES.argv(changed, {"backbone": str(backbone)}, {"features": str(folder)})
    option = "--mount.data" if isinstance(data, Path) else "--input.data"
    execute(FEATURES, FEATURES.parse([*argv[2:], option, str(data)]))
    return folder


def probe(features: Path, folder: Path, **config: Any) -> Path:
    outputs = {name: str(folder / name) for name in PROBE.outputs}
    argv = PROBE.argv(PROBE.config().derive(**config), {"features": str(features)}, outputs)
    execute(PROBE, PROBE.parse(argv[2:]))
    return folder


@pytest.fixture(scope="module")
def features(
    imagenet_folder: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("extracted") / "features"
    return extract(imagenet_folder, backbone, folder, batch_size=7)


def plainly(images: Any, backbone: Path) -> torch.Tensor:
    loader = make_loader(images, EVALUATION, LoaderConfig(workers=0), batch_size=13)
    model = load_backbone(backbone).eval()
    with torch.inference_mode():
        return torch.cat([model(finish_views(raw, EVALUATION)[0]) for raw in loader.epoch()])


def test_features_are_those_of_a_plain_loop(
    features: Path, imagenet_folder: Path, backbone: Path
) -> None:
    for split in ("train", "val"):
        images = read_image_set("imagenet", imagenet_folder, split)
        stored = read_features(features, split)
        pooled = torch.from_numpy(np.array(stored.pooled))
        close(pooled, plainly(images, backbone), rtol=1e-4, atol=1e-5)
        assert stored.labels.tolist() == images.labels.tolist()
        assert stored.classes == images.classes
    assert stored.images == tuple(images.files)


def test_two_processes_extract_the_same(
    features: Path, imagenet_folder: Path, backbone: Path, tmp_path: Path
) -> None:
    folder = extract(imagenet_folder, backbone, tmp_path / "two", processes=2, batch_size=8)
    for split in ("train", "val"):
        ours, theirs = (read_features(place, split) for place in (folder, features))
        assert ours.labels.tolist() == theirs.labels.tolist()
        np.testing.assert_allclose(ours.pooled, theirs.pooled, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_read_is_left_out_and_counted(
    imagenet_folder: Path, backbone: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(imagenet_folder, data)
    broken = sorted((data / "val").rglob("*.JPEG"))[4]
    broken.write_bytes(b"not an image")

    folder = extract(data, backbone, tmp_path / "features")

    stored = read_features(folder, "val")
    name = str(broken.relative_to(data / "val"))
    assert len(stored.pooled) == len(stored.images) == 29
    assert name not in stored.images
    assert read_manifest(folder).facts["corrupt_validation_images"] == 1
    details = read_metrics(probe(folder, tmp_path) / "linear").details
    assert details["validation_images"] == 29


def test_data_without_a_split_is_divided_where_that_is_asked_for(
    imagenet_folder: Path, backbone: Path, tmp_path: Path
) -> None:
    folder = extract(imagenet_folder / "train", backbone, tmp_path / "features", held_out=20)
    counts = [len(read_features(folder, split).labels) for split in ("train", "val")]
    assert counts == [81, 19]
    with pytest.raises(DataError, match="train: the folder is missing"):
        extract(imagenet_folder / "train", backbone, tmp_path / "refused")


def test_a_data_set_in_a_bucket_needs_no_manifest(
    bucket_url: str,
    minio_server: MinioServer,
    features: Path,
    imagenet_folder: Path,
    backbone: Path,
    tmp_path: Path,
) -> None:
    from components.core.store import open_store

    open_store(bucket_url).put_folder(imagenet_folder, "birds")
    folder = extract(f"{bucket_url}/birds", backbone, tmp_path / "features")
    ours, theirs = (read_features(place, "val") for place in (folder, features))
    assert ours.images == theirs.images
    assert read_manifest(folder).inputs["data"].origin == "mount"

    # What a stage began and did not finish is no data set.
    open_store(bucket_url).put_folder(_unfinished(imagenet_folder, tmp_path), "half")
    with pytest.raises(DataError, match=r"half"):
        extract(f"{bucket_url}/half", backbone, tmp_path / "refused")


def _unfinished(data: Path, tmp_path: Path) -> Path:
    shutil.copytree(data, tmp_path / "half")
    (tmp_path / "half" / ".unfinished").touch()
    return tmp_path / "half"


@pytest.mark.parametrize("l2", [1.0, 0.01, 0.0001])
def test_the_regression_is_scikit_learns(l2: float) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 20, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (300,), generator=generator)
    samples = centres[labels] + torch.randn(300, 20, generator=generator, dtype=torch.float64)
    peer = LogisticRegression(C=1 / (300 * l2), tol=1e-9, max_iter=10_000)
    peer.fit(samples.numpy(), labels.numpy())

    ours = fit_regression(samples, labels, 7, l2)

    scores = torch.from_numpy(peer.decision_function(samples.numpy()))
    penalty = l2 / 2 * float((peer.coef_**2).sum())
    assert ours.loss == pytest.approx(float(F.cross_entropy(scores, labels)) + penalty, abs=1e-5)
    assert (ours.logits(samples).argmax(1) == scores.argmax(1)).float().mean() > 0.99
    if l2 > 0.001:  # with less of it, very different weights are nearly as good
        close(ours.logits(samples).log_softmax(1), scores.log_softmax(1), rtol=2e-3, atol=2e-3)
    started = fit_regression(samples, labels, 7, l2, start=ours.weights)
    assert started.iterations <= 2
    assert started.loss == pytest.approx(ours.loss, abs=1e-6)


def test_a_regression_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(100, 5, generator=generator)
    labels = torch.randint(0, 3, (100,), generator=generator)
    whole = fit_regression(samples, labels, 3, 0.1)
    monkeypatch.setattr("components.classification.logistic._CHUNK", 7)
    close(fit_regression(samples, labels, 3, 0.1).weights, whole.weights, rtol=1e-3, atol=1e-3)


def test_what_is_learned_of_features_is_measured_image_by_image(
    features: Path, tmp_path: Path
) -> None:
    folder = probe(features, tmp_path)
    linear, knn = (read_metrics(folder / name) for name in ("linear", "knn"))
    assert linear.values["top1"] > 25  # 10 % is chance, also of random features
    assert knn.values["top1"] > 15
    lines = (folder / "linear/predictions.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    assert [one["image"] for one in predictions] == [*read_features(features, "val").images]
    right = sum(one["label"] == one["classes"][0] for one in predictions)
    assert linear.values["top1"] == pytest.approx(100 * right / 30)
    for name, metrics in (("linear", linear), ("knn", knn)):
        rows = json.loads((folder / name / "per_class.json").read_text())
        assert sum(row["right"] for row in rows) == pytest.approx(0.3 * metrics.values["top1"])
    tried = linear.details["held_out_top1"]
    assert isinstance(tried, dict)
    best = max(tried.values())  # type: ignore[type-var]
    assert tried[f"{linear.details['l2']:g}"] == best


def test_frozen_features_measured_alike_whatever_the_way(
    features: Path, imagenet_folder: Path, backbone: Path, tmp_path: Path
) -> None:
    """The protocol of Sec. 4.1 and the regression agree on which encoder and data these are."""
    paper = run_here(LINEAR, imagenet_folder, backbone, tmp_path / "paper", epochs=40, lr=1)
    ours = read_metrics(probe(features, tmp_path / "ours") / "linear")
    assert ours.values["top1"] == pytest.approx(paper.metrics.values["top1"], abs=15)


def test_a_trial_draws_the_share_of_the_labels(features: Path, tmp_path: Path) -> None:
    counts, accuracies = [], set()
    for seed in (0, 1, 2):
        folder = probe(features, tmp_path / str(seed), labels=20, seed=seed)
        linear = read_metrics(folder / "linear")
        counts.append(linear.details["training_images"])
        accuracies.add(
            (linear.values["validation_loss"], read_metrics(folder / "knn").values["top1"])
        )
    assert counts == [20, 20, 20]
    assert len(accuracies) == 3
    again = probe(features, tmp_path / "again", labels=20, seed=1)
    assert read_metrics(again / "linear").values["validation_loss"] in {a for a, _ in accuracies}


def test_with_one_image_of_each_class_nothing_is_held_out(features: Path, tmp_path: Path) -> None:
    details = read_metrics(probe(features, tmp_path, labels=10) / "linear").details
    assert details["training_images"] == 10
    assert details["held_out_top1"] == {}
    with pytest.raises(DataError, match="needed to show each of 10 classes"):
        probe(features, tmp_path / "refused", labels=5)


def test_a_folder_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not hold features of val: .*features\.json"):
        read_features(tmp_path, "val")


def test_images_in_shards_have_the_features_of_those_in_files(
    features: Path, imagenet_folder: Path, backbone: Path, tmp_path: Path
) -> None:
    pack("imagenet", imagenet_folder, tmp_path / "shards", shard=9)
    folder = extract(tmp_path / "shards", backbone, tmp_path / "features")
    by_name = [
        dict(zip(stored.images, stored.pooled, strict=True))
        for stored in (read_features(place, "val") for place in (folder, features))
    ]
    assert by_name[0].keys() == by_name[1].keys()
    for name, pooled in by_name[0].items():
        np.testing.assert_allclose(pooled, by_name[1][name], rtol=1e-4, atol=1e-5)
    assert len(read_features(folder, "train").labels) == 100
