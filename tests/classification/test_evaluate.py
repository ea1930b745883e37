"""Accuracies, results of each class and kept predictions agree."""

import json
from pathlib import Path

import pytest
import torch

from components.classification.evaluate import Evaluator, Predictions, write_predictions
from components.classification.model import Classifier
from components.vision.backbones import random_backbone
from components.vision.config import EvaluationConfig, LoaderConfig
from components.vision.image_sets import ImageSet
from components.vision.loading import make_loader
from tests.datasets.readers import read_image_set


def predictions() -> Predictions:
    """Three images of class 0, one of class 2 and none of class 1."""
    return Predictions(
        indices=torch.tensor([0, 1, 2, 3]),
        labels=torch.tensor([0, 0, 0, 2]),
        classes=torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [6, 5, 4, 3, 2], [3, 2, 1, 0, 4]]),
        probabilities=torch.full((4, 5), 0.1),
        losses=torch.tensor([0.5, 1.0, 3.0, 1.5]),
    )


def test_top5_counts_a_class_anywhere_among_the_five() -> None:
    assert predictions().right(5).tolist() == [True, True, False, True]
    assert predictions().right(1).tolist() == [True, False, False, False]
    assert predictions().figures() == {"top1": 25.0, "top5": 75.0, "validation_loss": 1.5}


def test_per_class_results_sum_up_to_the_whole(tmp_path: Path) -> None:
    write_predictions(tmp_path, predictions(), "xyz", "abcd")
    rows = json.loads((tmp_path / "per_class.json").read_text())
    assert [row["class"] for row in rows] == ["x", "y", "z"]
    assert [row["images"] for row in rows] == [3, 0, 1]
    assert [row["right"] for row in rows] == [1, 0, 0]
    assert rows[0]["top1"] == pytest.approx(100 / 3)
    assert rows[1]["top1"] is None  # no image, no accuracy
    assert rows[2]["top5"] == 100.0
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == ["a", "b", "c", "d"]
    assert lines[3]["classes"] == [3, 2, 1, 0, 4]


@pytest.mark.parametrize("classes", [3, 10])
def test_measuring_equals_a_plain_statement_of_it(imagenet_folder: Path, classes: int) -> None:
    images = read_image_set("imagenet", imagenet_folder, "val")
    evaluation = EvaluationConfig(resize=24, crop=24)
    loader = make_loader(images, evaluation, LoaderConfig(workers=0), batch_size=7)
    torch.manual_seed(0)
    model = Classifier(random_backbone("resnet_digits", 0), max(classes, 10), frozen=False)
    if classes < 10:
        model.head = torch.nn.Linear(128, classes)
        images.labels[:] = images.labels % classes
    measured = Evaluator(loader, evaluation).measure(model)

    views = torch.cat([batch.views[0] for batch in loader.epoch(0)]).float() / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (evaluation.mean, evaluation.std))
    with torch.no_grad():
        logits = model.eval().logits((views - mean) / std)
    labels = torch.from_numpy(images.labels).long()
    scores = logits.softmax(1)
    assert measured.indices.tolist() == list(range(len(images)))
    assert measured.classes.shape == (len(images), min(5, classes))
    # Not the order itself: another size of batch may change which of two equals comes first.
    likeliest = scores.topk(min(5, classes)).values
    torch.testing.assert_close(scores.gather(1, measured.classes), likeliest)
    torch.testing.assert_close(measured.probabilities, likeliest)
    assert measured.figures()["validation_loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5
    )
    if classes < 5:
        assert measured.figures()["top5"] == 100.0


def test_mixed_precision_around_it_does_not_change_a_measurement(imagenet_folder: Path) -> None:
    images = read_image_set("imagenet", imagenet_folder, "val")
    evaluation = EvaluationConfig(resize=24, crop=24)
    loader = make_loader(images, evaluation, LoaderConfig(workers=0), batch_size=30)
    model = Classifier(random_backbone("resnet_digits", 0), 10, frozen=False)
    evaluator = Evaluator(loader, evaluation)
    plain = evaluator.measure(model)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = evaluator.measure(model)
    assert torch.equal(plain.losses, mixed.losses)
    assert evaluator.latest is mixed


def test_a_rank_without_any_image_adds_nothing(imagenet_folder: Path) -> None:
    images = read_image_set("imagenet", imagenet_folder, "val")
    one = ImageSet(images.root, images.files[:1], images.labels[:1], images.classes)
    evaluation = EvaluationConfig(resize=24, crop=24)
    config = LoaderConfig(workers=0)
    loader = make_loader(one, evaluation, config, batch_size=2, rank=1, world=2)
    model = Classifier(random_backbone("resnet_digits", 0), 10, frozen=False)
    assert Evaluator(loader, evaluation).measure(model).indices.tolist() == []
