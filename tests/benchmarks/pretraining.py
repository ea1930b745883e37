"""A pre-training step and the kNN monitor, against plain torch and against lightly."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from components.pretrain import PretrainConfig
from components.pretrain.mechanisms import build_mechanism
from components.vision.neighbours import knn_predict
from tests.benchmarks._timing import compare

SIZE = 96  # pixels; the ratio hardly depends on it, the time does
CONFIG = PretrainConfig(batch_size=32, negatives=65536, sub_batch=32)


def run() -> list[dict[str, Any]]:
    """Measure; every ratio is the peer's time over ours, so more than 1 is faster."""
    torch.manual_seed(0)
    return [_step_against_plain_torch(), _step_against_lightly(), _knn_against_lightly()]


class PlainMoCo(nn.Module):
    """Algorithm 1 of the paper, stated as directly as torch lets one."""

    queue: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.query = torchvision.models.resnet50(num_classes=CONFIG.dim)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(CONFIG.dim, CONFIG.negatives), dim=0))
        self.pointer = 0

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        queries = F.normalize(self.query(query), dim=1)
        with torch.no_grad():
            for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                slow.data = slow.data * CONFIG.key_momentum + fast.data * (1 - CONFIG.key_momentum)
            order = torch.randperm(len(key))
            keys = F.normalize(self.key(key[order]), dim=1)[torch.argsort(order)]
        positive = torch.einsum("nc,nc->n", [queries, keys]).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", [queries, self.queue.clone().detach()])
        logits = torch.cat([positive, negative], 1) / CONFIG.temperature
        self.queue[:, self.pointer : self.pointer + len(keys)] = keys.T
        self.pointer = (self.pointer + len(keys)) % CONFIG.negatives
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def _step_against_plain_torch() -> dict[str, Any]:
    ours, peer = build_mechanism(CONFIG, 1), PlainMoCo()
    return compare(
        "pre-training step / plain torch",
        _trainer(ours, lambda q, k: ours({"query": q, "key": k})[0]),
        _trainer(peer, peer),
        goal=1.0,
    )


def _step_against_lightly() -> dict[str, Any]:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import (
        batch_shuffle,
        batch_unshuffle,
        deactivate_requires_grad,
        update_momentum,
    )

    ours = build_mechanism(CONFIG.derive(head="mlp"), 1)
    backbone = torchvision.models.resnet50()
    backbone.fc = nn.Identity()
    query = nn.Sequential(backbone, MoCoProjectionHead(2048, 2048, CONFIG.dim))
    key = copy.deepcopy(query)
    deactivate_requires_grad(key)
    loss = NTXentLoss(CONFIG.temperature, memory_bank_size=(CONFIG.negatives, CONFIG.dim))

    def lightly_step(query_views: Tensor, key_views: Tensor) -> Tensor:
        update_momentum(query, key, CONFIG.key_momentum)
        queries = query(query_views)
        with torch.no_grad():
            shuffled, order = batch_shuffle(key_views)
            keys = batch_unshuffle(key(shuffled), order)
        result: Tensor = loss(queries, keys)
        return result

    return compare(
        "pre-training step / lightly",
        _trainer(ours, lambda q, k: ours({"query": q, "key": k})[0]),
        _trainer(query, lightly_step),
        goal=1.0,
    )


def _knn_against_lightly() -> dict[str, Any]:
    from lightly.utils.benchmarking import knn_predict as lightly_knn

    queries = F.normalize(torch.randn(512, 128), dim=1)
    bank = F.normalize(torch.randn(200_000, 128), dim=1)
    labels = torch.randint(0, 1000, (len(bank),))
    columns = bank.T.contiguous()

    def ours() -> Tensor:
        return knn_predict(queries, bank, labels, classes=1000, neighbours=200, temperature=0.07)

    def peer() -> Tensor:
        result: Tensor = lightly_knn(
            queries, columns, labels, num_classes=1000, knn_k=200, knn_t=0.07
        )
        return result[:, 0]

    assert torch.equal(ours(), peer())
    return compare("kNN monitor / lightly", ours, peer, goal=2.0)


def _trainer(module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)
    views = torch.randn(2, CONFIG.batch_size, 3, SIZE, SIZE)
    module.train()

    def step() -> None:
        value = loss(views[0], views[1])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return step
