"""A step of fine-tuning for segmentation, against torchvision's FCN at the same output stride."""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import segmentation as peers
from torchvision.models._utils import IntermediateLayerGetter

from components.segmentation import voc
from components.segmentation.model import FCN
from components.vision.backbones import build_backbone
from tests.benchmarks._timing import compare

CONFIG = voc().derive(batch_size=4, crop=193)  # the ratio hardly depends on them, the time does
CLASSES = 21


def run() -> list[dict[str, Any]]:
    """Measure on one core; the ratio is the peer's time over ours, so more than 1 is faster.

    torchvision's `fcn_resnet50` has stride 8 and another head. Its parts are put together
    for stride 16, and it gets the head of Appendix A.5, so that both multiply as much.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ours = FCN(build_backbone("resnet50"), CLASSES, CONFIG.channels)
    resnet = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    features = IntermediateLayerGetter(resnet, {"layer4": "out"})
    peer = peers.FCN(features, copy.deepcopy(ours.head))

    def peers_loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(peer(images)["out"], labels, ignore_index=255)

    return [
        compare(
            "segmentation step / torchvision's FCN",
            _trainer(ours, lambda images, labels: ours({"images": images, "labels": labels})[0]),
            _trainer(peer, peers_loss),
            goal=1.0,
            turns=15,
            clock=time.process_time,
        )
    ]


def _trainer(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.SGD(
        module.parameters(), lr=0.003, momentum=0.9, weight_decay=CONFIG.weight_decay
    )
    images = torch.randn(CONFIG.batch_size, 3, CONFIG.crop, CONFIG.crop)
    labels = torch.randint(0, CLASSES, (CONFIG.batch_size, CONFIG.crop, CONFIG.crop))
    module.train()

    def step() -> None:
        value = loss(images, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return step
