"""ResNet-50's steps on a GPU: kernels against plain torch, and what is computed around them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from components.vision import kernels
from components.vision.backbones import random_backbone
from components.vision.config import AugmentationConfig, EvaluationConfig, moco_v1, moco_v2
from components.vision.device import finish_views
from components.vision.neighbours import knn_predict
from components.vision.norm import use_sub_batches
from tests.pretrain.test_shuffling import batch_of


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_kernels_can_be_used_here() -> None:
    if torch.cuda.get_device_capability() < kernels.CAPABILITY:
        pytest.skip("this GPU is older than the kernels want")
    assert kernels.available()


def gradients(
    groups: int, dtype: torch.dtype, autocast: torch.dtype | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Features, gradients and running statistics of a ResNet-50 in training."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 96, 96, generator=generator).to("cuda", dtype)
    weights = torch.randn(16, 2048, generator=generator).cuda()
    backbone = random_backbone("resnet50", 0)
    use_sub_batches(backbone, len(images) // groups)
    backbone.to("cuda", dtype).to(memory_format=torch.channels_last).train()
    with torch.autocast("cuda", autocast, enabled=autocast is not None):
        features = backbone(images)
    (features.double() * weights).sum().backward()
    flat = torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])
    statistics = {name: buffer for name, buffer in backbone.named_buffers() if "running" in name}
    return features.detach(), flat, statistics


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_step_with_kernels_is_as_exact_as_one_without(
    groups: int, autocast: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding grows over 53 layers in both; what is true is known from double precision."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with_kernels = gradients(groups, torch.float32, autocast)
    without_kernels(monkeypatch)
    plain = gradients(groups, torch.float32, autocast)
    true = gradients(groups, torch.float64)
    for found, usual, expected in zip(with_kernels[:2], plain[:2], true[:2], strict=True):
        limit = 1.5 * difference(usual, expected) + 1e-6
        assert difference(found, expected) < limit
    for name, statistics in true[2].items():
        limit = 2 * difference(plain[2][name], statistics) + 1e-5
        assert difference(with_kernels[2][name], statistics) < limit, name


def test_features_in_evaluation_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    backbone = random_backbone("resnet50", 0).cuda().to(memory_format=torch.channels_last).eval()
    images = torch.randn(4, 3, 96, 96, device="cuda")
    with torch.no_grad():
        found = backbone(images)
        without_kernels(monkeypatch)
        assert difference(found, backbone(images)) < 1e-5


@pytest.mark.parametrize("config", [moco_v1(40), moco_v2(40)], ids=["v1", "v2"])
def test_views_are_finished_as_on_a_processor(config: AugmentationConfig) -> None:
    batch = batch_of(config, 32)
    for found, expected in zip(
        finish_views(batch.to("cuda"), config), finish_views(batch, config), strict=True
    ):
        apart = (found.cpu() - expected).abs()
        assert apart.mean() < 1e-3
        assert apart.max() < 0.05  # a hue next to where its formula changes; TF32 in the blur


def test_evaluation_views_are_only_normalised() -> None:
    batch = batch_of(moco_v1(40), 8)
    plain = type(batch)(batch.views, (), batch.labels, batch.indices)
    config = EvaluationConfig()
    for found, expected in zip(
        finish_views(plain.to("cuda"), config), finish_views(plain, config), strict=True
    ):
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("entries", [300, 50_017])
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_monitors_votes_are_those_of_double_precision(
    entries: int, deterministic: bool
) -> None:
    torch.use_deterministic_algorithms(deterministic)
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((50, 128))
    labels = generator.integers(0, 50, entries)
    bank = centres[labels] + 2 * generator.standard_normal((entries, 128))
    queries = centres[generator.integers(0, 50, 500)] + 2 * generator.standard_normal((500, 128))
    bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    found = knn_predict(
        torch.from_numpy(queries).float().cuda(),
        torch.from_numpy(bank).float().cuda(),
        torch.from_numpy(labels).cuda(),
        classes=50,
    )
    similarity = queries @ bank.T
    nearest = np.argsort(-similarity, axis=1)[:, :200]
    votes = np.zeros((500, 50))
    for row in range(500):
        np.add.at(votes[row], labels[nearest[row]], np.exp(similarity[row, nearest[row]] / 0.07))
    assert (found.cpu().numpy() == votes.argmax(1)).mean() >= 0.998  # a tie may fall either way


def test_resnet50_trains_with_deterministic_kernels() -> None:
    torch.use_deterministic_algorithms(True)
    images = torch.randn(8, 3, 96, 96, device="cuda")
    ends = []
    for _ in range(2):
        model = random_backbone("resnet50", 0).cuda().to(memory_format=torch.channels_last).train()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(images).float().square().mean()
        loss.backward()
        ends.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
