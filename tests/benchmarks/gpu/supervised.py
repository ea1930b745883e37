"""Steps of linear classification, fine-tuning and segmentation, against plain loops in torch."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import segmentation as torchvisions
from torchvision.models._utils import IntermediateLayerGetter

from components.classification.imagenet import fine_tuning
from components.classification.linear import LinearConfig
from components.classification.model import Classifier
from components.segmentation import voc
from components.segmentation.model import FCN
from components.training.config import TrainingConfig
from components.training.learner import Batch
from components.vision.backbones import build_backbone
from tests.benchmarks.gpu._measure import ours, peers, row

BATCH = 256


def run() -> Iterator[dict[str, Any]]:
    """Measure; every ratio is our rate over the peer's."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, 3, 224, 224, device="cuda")
    labels = torch.randint(0, 1000, (BATCH,), device="cuda")
    for name, config, frozen in (
        ("linear classification step", LinearConfig(lr=1e-3), True),
        ("fine-tuning step", fine_tuning().derive(lr=1e-4), False),
    ):
        peer = torchvision.models.resnet50()
        peer.requires_grad_(not frozen)
        peer.fc.requires_grad_(True)
        peer.eval() if frozen else peer.train()
        module = Classifier(build_backbone("resnet50"), 1000, frozen=frozen)
        yield from _rows(name, module, config, {"images": images, "labels": labels}, peer.cuda())
    yield from _segmentation()


def _segmentation() -> Iterator[dict[str, Any]]:
    config = voc().derive(lr=1e-4)
    module = FCN(build_backbone("resnet50"), 21, config.channels)
    resnet = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    features = IntermediateLayerGetter(resnet, {"layer4": "out"})
    # torchvision's FCN, at the stride and with the head of Appendix A.5.
    peer = torchvisions.FCN(features, copy.deepcopy(module.head)).cuda().train()
    images = torch.randn(config.batch_size, 3, config.crop, config.crop, device="cuda")
    labels = torch.randint(0, 21, (config.batch_size, config.crop, config.crop), device="cuda")
    yield from _rows(
        "segmentation step", module, config, {"images": images, "labels": labels}, peer
    )


def _rows(
    name: str,
    module: nn.Module,
    config: TrainingConfig,
    batch: Batch,
    peer: nn.Module,
) -> Iterator[dict[str, Any]]:
    own = ours(module, config, batch)
    learned = [parameter for parameter in peer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    for precision, goal in (("bf16", 1.0), ("fp32", 2.0)):

        def step(enabled: bool = precision == "bf16") -> None:
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
                scores = peer(batch["images"])
                scores = scores["out"] if isinstance(scores, dict) else scores
                value = F.cross_entropy(scores.float(), batch["labels"], ignore_index=255)
            value.backward()
            optimizer.step()

        yield row(
            f"{name} / a plain loop in {precision}", own, peers(step, config.batch_size), goal
        )
