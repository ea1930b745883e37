"""What is frozen stays frozen, and what moved is found out."""

from pathlib import Path

import pytest
import torch
from torch import nn

from components.classification.model import Classifier, moved_tensors
from components.classification.train import check_unmoved
from components.core.errors import MocoError
from components.vision.backbones import load_backbone, random_backbone


def classifier(*, frozen: bool) -> Classifier:
    torch.manual_seed(0)
    return Classifier(random_backbone("resnet_digits", 1), 10, frozen=frozen)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randn(8, 3, 24, 24, generator=generator),
        "labels": torch.arange(8),
    }


def test_a_frozen_backbone_stays_in_evaluation_whatever_the_loop_asks_for() -> None:
    model = classifier(frozen=True).train()
    assert model.training
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    assert all(module.training for module in classifier(frozen=False).train().modules())


def test_only_the_head_of_a_frozen_model_gets_gradients() -> None:
    model = classifier(frozen=True).train()
    loss, _ = model(batch())
    loss.backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {"head.weight", "head.bias"}
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad}


def test_every_parameter_of_an_end_to_end_model_gets_a_gradient() -> None:
    model = classifier(frozen=False).train()
    loss, _ = model(batch())
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_frozen_forward_pass_moves_nothing_but_a_trained_one_moves_batch_statistics() -> None:
    original = random_backbone("resnet_digits", 1)
    frozen, trained = classifier(frozen=True).train(), classifier(frozen=False).train()
    frozen(batch())
    trained(batch())
    assert moved_tensors(frozen.backbone, original) == []
    moved = moved_tensors(trained.backbone, original)
    norms = [n for n, m in original.named_modules() if isinstance(m, nn.BatchNorm2d)]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert set(moved) == {f"{norm}.{buffer}" for norm in norms for buffer in buffers}


def test_the_head_starts_as_the_released_code_starts_it() -> None:
    torch.manual_seed(0)
    model = Classifier(random_backbone("resnet_digits", 1), 1000, frozen=True)
    assert model.head.weight.shape == (1000, 128)
    assert float(model.head.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not model.head.bias.any()


def test_the_loss_is_the_cross_entropy_and_the_accuracy_a_percentage() -> None:
    model = classifier(frozen=True)
    images, labels = batch().values()
    loss, figures = model({"images": images, "labels": labels})
    logits = model.head(model.backbone(images))
    expected = -logits.log_softmax(1)[torch.arange(8), labels].mean()
    torch.testing.assert_close(loss, expected)
    assert float(figures["training_top1"]) == 100 * (logits.argmax(1) == labels).sum() / 8


def test_the_smallest_move_of_one_buffer_of_the_encoder_is_caught(backbone: Path) -> None:
    model = Classifier(load_backbone(backbone), 10, frozen=True)
    assert check_unmoved(model, backbone) == len(load_backbone(backbone).state_dict())
    mean = model.backbone.get_buffer("layer3.0.bn2.running_mean")
    mean[5] = torch.nextafter(mean[5], torch.tensor(1.0))
    with pytest.raises(MocoError, match=r"1 of \d+ tensors .* layer3\.0\.bn2\.running_mean"):
        check_unmoved(model, backbone)
