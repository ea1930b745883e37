"""The stages as they are run: on real digits, interrupted, in two processes, on bad data."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.classification.evaluate import Evaluator
from components.classification.imagenet import STAGE as IMAGENET
from components.classification.inaturalist import STAGE as INATURALIST
from components.classification.linear import STAGE as LINEAR
from components.classification.model import Classifier
from components.convert import STAGE as CONVERT
from components.core.errors import ConfigError, DataError
from components.core.main import execute
from components.core.manifest import verify
from components.core.stage import Stage
from components.vision.backbones import build_backbone, load_backbone
from components.vision.config import EvaluationConfig, LoaderConfig
from components.vision.loading import make_loader
from tests.classification.making import Run, run_here, start
from tests.datasets.readers import read_image_set

EVALUATION = EvaluationConfig(resize=24, crop=24)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory, imagenet_folder: Path, backbone: Path) -> Run:
    folder = tmp_path_factory.mktemp("linear")
    return run_here(LINEAR, imagenet_folder, backbone, folder, epochs=4, lr=0.1)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory, imagenet_folder: Path) -> Path:
    """A hundred images that are for training and validation alike."""
    folder = tmp_path_factory.mktemp("memory")
    for split in ("train", "val"):
        shutil.copytree(imagenet_folder / "train", folder / split)
    return folder


def test_linear_classification_leaves_the_encoder_untouched(linear: Run, backbone: Path) -> None:
    before = load_file(backbone / "backbone.safetensors")
    after = load_file(linear.model / "encoder.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert linear.manifest.facts["unmoved_encoder_tensors"] == len(before)


def test_linear_classification_learns_a_head(tmp_path: Path, memory: Path, backbone: Path) -> None:
    run = run_here(LINEAR, memory, backbone, tmp_path, epochs=20, lr=1)
    head = load_file(run.model / "head.safetensors")
    assert {name: tuple(t.shape) for name, t in head.items()} == {
        "weight": (10, 128),
        "bias": (10,),
    }
    assert head["bias"].any()
    # As the features are random, 60 to 70 % was seen; 10 % is chance.
    assert run.metrics.values["top1"] > 35


def test_predictions_per_class_results_and_figures_agree(linear: Run) -> None:
    rows, predictions = linear.per_class, linear.predictions
    assert sum(row["images"] for row in rows) == len(predictions) == 30
    right = [one["label"] == one["classes"][0] for one in predictions]
    right5 = [one["label"] in one["classes"] for one in predictions]
    assert sum(row["right"] for row in rows) == sum(right)
    assert linear.metrics.values["top1"] == pytest.approx(100 * sum(right) / 30)
    assert linear.metrics.values["top5"] == pytest.approx(100 * sum(right5) / 30)
    assert linear.metrics.curves["top1"][-1] == (4.0, linear.metrics.values["top1"])
    assert len({one["image"] for one in predictions}) == 30
    assert all(one["probabilities"] == sorted(one["probabilities"])[::-1] for one in predictions)


def test_a_tiny_set_is_memorised(tmp_path: Path, memory: Path, backbone: Path) -> None:
    run = run_here(IMAGENET, memory, backbone, tmp_path, epochs=30, lr=0.05, evaluate_every=30)
    assert run.metrics.values["top1"] > 90
    assert run.metrics.values["top5"] > 95
    learned = [accuracy for _, accuracy in run.metrics.curves["training_top1"]]
    # The first and the last epoch, whole: a batch alone may have any accuracy.
    assert sum(learned[:5]) / 5 < 50 < 75 < sum(learned[-5:]) / 5
    assert len(run.metrics.curves["top1"]) == 1
    assert "unmoved_encoder_tensors" not in run.manifest.facts


def test_a_trained_classifier_becomes_the_supervised_initialisation(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    run = run_here(IMAGENET, imagenet_folder, backbone, tmp_path, epochs=1)
    config = json.dumps({"source": "classification", "architecture": "resnet_digits"})
    ports = ["--input.checkpoint", str(run.model), "--output.backbone", str(tmp_path / "converted")]
    execute(CONVERT, CONVERT.parse(["--config", config, *ports]))
    converted = load_backbone(tmp_path / "converted").state_dict()
    trained = load_file(run.model / "encoder.safetensors")
    assert all(torch.equal(converted[name], tensor) for name, tensor in trained.items())
    assert json.loads((tmp_path / "converted/backbone.json").read_text())["origin"] == "supervised"
    card = json.loads((run.model / "model.json").read_text())
    assert (card["task"], card["classes"], card["channel_order"]) == ("imagenet", 10, "RGB")


@pytest.mark.parametrize("stage", [LINEAR, INATURALIST], ids=lambda stage: stage.name)
def test_the_command_line_makes_verified_artifacts(
    stage: Stage[Any],
    tmp_path: Path,
    imagenet_folder: Path,
    inaturalist_folder: Path,
    backbone: Path,
) -> None:
    data = inaturalist_folder if stage is INATURALIST else imagenet_folder
    process = start(stage, data, backbone, tmp_path, epochs=2)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    model, metrics = verify(tmp_path / "model"), verify(tmp_path / "metrics")
    assert model.files.keys() >= {"encoder.safetensors", "head.safetensors", "model.json"}
    assert metrics.files.keys() >= {"metrics.json", "per_class.json", "predictions.jsonl"}
    assert model.facts == metrics.facts
    assert model.inputs["backbone"].name == "convert.backbone"
    assert '"event": "progress"' in log


def test_a_killed_run_continues_to_the_same_weights(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    run = {"epochs": 12, "lr": 0.1, "checkpoint_seconds": 0.001}
    killed = start(IMAGENET, imagenet_folder, backbone, tmp_path / "killed", **run)
    checkpoints = tmp_path / "killed/state/checkpoints"
    while not list(checkpoints.glob("*/manifest.json")):
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/model/manifest.json").exists()

    again = start(IMAGENET, imagenet_folder, backbone, tmp_path / "killed", **run)
    _, log = again.communicate(timeout=120)
    assert again.returncode == 0, log
    assert "continuing from a checkpoint" in log

    whole = run_here(IMAGENET, imagenet_folder, backbone, tmp_path / "whole", **run)
    continued = Run(tmp_path / "killed")
    assert continued.weights() == whole.weights()
    assert continued.predictions == whole.predictions
    assert continued.metrics.values == whole.metrics.values


def test_a_run_that_failed_after_training_measures_and_writes_without_training_again(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    first = run_here(LINEAR, imagenet_folder, backbone, tmp_path, epochs=1)
    expected = first.weights(), first.metrics
    for port in ("model", "metrics"):
        shutil.rmtree(tmp_path / port)
    second = run_here(LINEAR, imagenet_folder, backbone, tmp_path, epochs=1)
    assert (second.weights(), second.metrics) == expected


def test_two_processes_learn_the_head_that_one_learns(
    tmp_path: Path, imagenet_folder: Path, backbone: Path, linear: Run
) -> None:
    two = run_here(LINEAR, imagenet_folder, backbone, tmp_path, epochs=4, lr=0.1, processes=2)
    expected = load_file(linear.model / "head.safetensors")
    for name, tensor in load_file(two.model / "head.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    assert two.metrics.values == pytest.approx(linear.metrics.values, rel=1e-4)
    assert [one["image"] for one in two.predictions] == [one["image"] for one in linear.predictions]
    assert two.manifest.facts == linear.manifest.facts


def test_what_two_processes_measure_is_the_model_that_they_save(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    run = run_here(IMAGENET, imagenet_folder, backbone, tmp_path, epochs=2, lr=0.1, processes=2)
    model = Classifier(build_backbone("resnet_digits"), 10, frozen=False)
    model.backbone.load_state_dict(load_file(run.model / "encoder.safetensors"))
    model.head.load_state_dict(load_file(run.model / "head.safetensors"))
    images = read_image_set("imagenet", imagenet_folder, "val")
    loader = make_loader(images, EVALUATION, LoaderConfig(workers=0), batch_size=30)
    again = Evaluator(loader, EVALUATION).measure(model)
    kept = torch.tensor([one["probabilities"] for one in run.predictions])
    torch.testing.assert_close(kept, again.probabilities, rtol=0, atol=2e-5)
    assert run.metrics.values == pytest.approx(again.figures(), rel=1e-5)


def test_a_corrupt_validation_image_is_left_out_and_counted(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    data = shutil.copytree(imagenet_folder, tmp_path / "data")
    broken = sorted((data / "val").glob("*/*"))[3]
    broken.write_bytes(broken.read_bytes()[:100])
    run = run_here(LINEAR, data, backbone, tmp_path, epochs=1)
    details = run.metrics.details
    assert (details["validation_images"], details["evaluated_images"]) == (30, 29)
    told = details["corrupt_validation_images"]
    assert isinstance(told, list)
    assert [one["file"] for one in told if isinstance(one, dict)] == [str(broken)]
    assert run.manifest.facts["corrupt_validation_images"] == 1
    assert run.manifest.facts["corrupt_images"] == 0
    names = {one["image"] for one in run.predictions}
    assert len(names) == 29
    assert f"{broken.parent.name}/{broken.name}" not in names
    assert sum(row["images"] for row in run.per_class) == 29


def test_classes_that_differ_between_the_splits_are_refused_by_name(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    data = shutil.copytree(imagenet_folder, tmp_path / "data")
    gone = sorted((data / "val").iterdir())[4]
    shutil.rmtree(gone)
    with pytest.raises(
        DataError,
        match=f"moco data check imagenet .*\n.*val: has other classes than train .*{gone.name}",
    ):
        run_here(LINEAR, data, backbone, tmp_path, epochs=1)


def test_a_batch_larger_than_the_data_is_refused(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    with pytest.raises(ConfigError, match="100 images do not fill one batch of 128"):
        run_here(LINEAR, imagenet_folder, backbone, tmp_path, epochs=1, batch_size=128)


def test_images_on_another_scale_than_the_backbones_are_refused(
    tmp_path: Path, imagenet_folder: Path, backbone: Path
) -> None:
    evaluation = {"resize": 24, "crop": 24, "mean": [0.5, 0.5, 0.5]}
    with pytest.raises(ConfigError, match=r"evaluation\.mean .* \(0\.485, 0\.456, 0\.406\)"):
        run_here(LINEAR, imagenet_folder, backbone, tmp_path, epochs=1, evaluation=evaluation)
