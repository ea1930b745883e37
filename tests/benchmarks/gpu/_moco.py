"""What a pre-training step is compared with: the released code's way, and lightly's blocks."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from components.pretrain import PretrainConfig


class PlainMoCo(nn.Module):
    """Algorithm 1 of the paper as the released code has it for one GPU, in plain torch."""

    queue: Tensor

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.query = torchvision.models.resnet50(num_classes=config.dim)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(config.dim, config.negatives), dim=0))
        self.pointer = 0

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        queries = F.normalize(self.query(query), dim=1)
        with torch.no_grad():
            kept = self.config.key_momentum
            for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                slow.data = slow.data * kept + fast.data * (1 - kept)
            order = torch.randperm(len(key), device=key.device)
            keys = F.normalize(self.key(key[order]), dim=1)[torch.argsort(order)]
        positive = torch.einsum("nc,nc->n", [queries, keys]).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", [queries, self.queue.clone().detach()])
        logits = torch.cat([positive, negative], 1) / self.config.temperature
        self.queue[:, self.pointer : self.pointer + len(keys)] = keys.T
        self.pointer = (self.pointer + len(keys)) % self.config.negatives
        labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return F.cross_entropy(logits, labels), logits


def released_step(config: PretrainConfig, query: Tensor, key: Tensor) -> Callable[[], object]:
    """Return the released code's step: single precision, and figures that are read at once."""
    model = PlainMoCo(config).cuda().train()
    optimizer = _sgd(model)

    def step() -> None:
        loss, logits = model(query, key)
        best = logits.topk(5, dim=1).indices.T == 0
        loss.item(), best[:1].float().sum().item(), best[:5].float().sum().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def lightlys_step(config: PretrainConfig, query: Tensor, key: Tensor) -> Callable[[], object]:
    """Return a step of lightly's blocks, put together as its documentation does, in bf16."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import (
        batch_shuffle,
        batch_unshuffle,
        deactivate_requires_grad,
        update_momentum,
    )

    backbone = torchvision.models.resnet50()
    backbone.fc = nn.Identity()
    slow_backbone = copy.deepcopy(backbone)
    head = MoCoProjectionHead(2048, 2048, config.dim)
    slow_head = copy.deepcopy(head)
    for module in (backbone, slow_backbone, head, slow_head):
        module.cuda().train()
    deactivate_requires_grad(slow_backbone)
    deactivate_requires_grad(slow_head)
    criterion = NTXentLoss(config.temperature, memory_bank_size=(config.negatives, config.dim))
    criterion.cuda()
    optimizer = _sgd(nn.ModuleList([backbone, head]))

    def step() -> None:
        update_momentum(backbone, slow_backbone, config.key_momentum)
        update_momentum(head, slow_head, config.key_momentum)
        with torch.autocast("cuda", torch.bfloat16):
            queries = head(backbone(query))
            with torch.no_grad():
                shuffled, order = batch_shuffle(key)
                keys = batch_unshuffle(slow_head(slow_backbone(shuffled)), order)
            loss = criterion(queries, keys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.SGD(learned, lr=1e-4, momentum=0.9, weight_decay=1e-4)
