"""The three contrastive mechanisms of Figure 2: momentum contrast, end-to-end, memory bank."""

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from components.pretrain import PretrainConfig
from components.training.distributed import gather, rank, world
from components.training.learner import Batch, Losses
from components.vision.backbones import build_backbone
from components.vision.norm import use_sub_batches


class Encoder(nn.Module):
    """A backbone and the head that turns its pooled features into an embedding."""

    def __init__(self, config: PretrainConfig) -> None:
        """Build with torch's current random state."""
        super().__init__()
        self.backbone = build_backbone(config.architecture)
        features = self.backbone.num_features
        assert isinstance(features, int)
        layers: list[nn.Module] = [nn.Linear(features, config.dim)]
        if config.head == "mlp":
            layers = [nn.Linear(features, features), nn.ReLU(inplace=True), *layers]
        self.head = nn.Sequential(*layers)
        if config.shuffle != "none":
            use_sub_batches(self.backbone, config.sub_batch)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to embeddings of unit length, (N, dim), in fp32."""
        return F.normalize(self.head(self.backbone(images)).float(), dim=1)


class Mechanism(nn.Module, ABC):
    """What the mechanisms share: a query encoder, and the loss of Eq. 1.

    It is called with a batch that `components.pretrain.train` prepares:

    | key | |
    |---|---|
    | `query`, `key` | views, normalised, (N, 3, H, W); keys may be of other images than queries |
    | `places` | where in the global batch's keys those of its images are, (N * world,), if dealt |
    | `index` | of each sample in the data set, (N,) |
    | `drawn` | samples whose entries are a memory bank's negatives, (K,) |
    """

    def __init__(self, config: PretrainConfig) -> None:
        """Build the query encoder."""
        super().__init__()
        self.config = config
        self.query = Encoder(config)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the encoders; what is around them talks to other processes."""
        for module in self.children():
            module.compile(*args, **kwargs)

    def forward(self, batch: Batch) -> Losses:
        """Return the loss and the pretext accuracy, in percent."""
        logits, targets = self.contrast(batch)
        loss = F.cross_entropy(logits, targets)
        accuracy = (logits.detach().argmax(1) == targets).float().mean() * 100
        return loss, {"pretext_accuracy": accuracy}

    @abstractmethod
    def contrast(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits over keys, (N, keys), and the index of each positive, (N,)."""


def keys_of_all(encoder: Encoder, batch: Batch) -> Tensor:
    """Encode the key views; return those of all ranks by image, (N * world, dim). Collective.

    Gradients flow back to each rank's encoder, if it learns.
    """
    keys: Tensor = _Gather.apply(encoder(batch["key"]))
    return keys[batch["places"]] if "places" in batch else keys


def own_share(rows: Tensor) -> Tensor:
    """Return this rank's part of the rows of all ranks, (N * world, ...) to (N, ...)."""
    size = len(rows) // world()
    return rows[rank() * size : (rank() + 1) * size]


class MomentumContrast(Mechanism):
    """MoCo: keys of past batches in a queue, from an encoder that follows slowly (Sec. 3.2)."""

    queue: Tensor
    oldest: Tensor

    def __init__(self, config: PretrainConfig) -> None:
        """Start with equal encoders and a queue of random unit vectors."""
        super().__init__(config)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(config.negatives, config.dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def contrast(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compare queries with their keys and with the queue: (N, 1 + K), positives at 0.

        The key encoder moves between the query's forward pass and the key's, and the
        queue takes the keys in afterwards, as in the released code.
        """
        queries = self.query(batch["query"])
        with torch.no_grad():
            self.follow()
            keys = keys_of_all(self.key, batch)
        with torch.autocast(queries.device.type, enabled=False):
            positive = (queries * own_share(keys)).sum(1, keepdim=True)
            # A copy, because the queue changes before the backward pass reads it.
            negative = queries @ self.queue.clone().T
            logits = torch.cat([positive, negative], 1) / self.config.temperature
        self.enqueue(keys)
        return logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the key encoder's parameters by Eq. 2; its batch-norm buffers are its own."""
        keys = [parameter.data for parameter in self.key.parameters()]
        queries = [parameter.data for parameter in self.query.parameters()]
        torch._foreach_lerp_(keys, queries, 1 - self.config.key_momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest entries of the queue by the keys of all ranks, (N * world, dim)."""
        places = self.oldest + torch.arange(len(keys), device=keys.device)
        self.queue.index_copy_(0, places % len(self.queue), keys)
        self.oldest.add_(len(keys)).remainder_(len(self.queue))


class EndToEnd(Mechanism):
    """Negatives are the other keys of the batch; both encoders learn by back-propagation."""

    def __init__(self, config: PretrainConfig) -> None:
        """Start with equal encoders."""
        super().__init__(config)
        self.key = copy.deepcopy(self.query)

    def contrast(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compare this rank's queries with the keys of all ranks: (N, N * world)."""
        queries = self.query(batch["query"])
        keys = keys_of_all(self.key, batch)
        with torch.autocast(queries.device.type, enabled=False):
            logits = queries @ keys.T / self.config.temperature
        own = torch.arange(len(queries), device=queries.device)
        return logits, own + rank() * len(queries)


class MemoryBank(Mechanism):
    """A feature of every sample in a bank; negatives are drawn from it (Wu et al. 2018).

    The positive is the sample's own entry, an older view of it, so batch statistics
    are never shared with the query and shuffling makes no difference (Appendix A.9).
    """

    bank: Tensor

    def __init__(self, config: PretrainConfig, samples: int) -> None:
        """Start with random unit vectors for all samples of the data set."""
        super().__init__(config)
        self.register_buffer("bank", F.normalize(torch.randn(samples, config.dim), dim=1))

    def contrast(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compare queries with their entries and with K random ones: (N, 1 + K), positives at 0.

        One draw of K serves all queries of a step.
        """
        queries = self.query(batch["query"])
        indices = batch["index"]
        with torch.autocast(queries.device.type, enabled=False):
            entries = self.bank[indices]
            positive = (queries * entries).sum(1, keepdim=True)
            negative = queries @ self.bank[batch["drawn"]].T
            logits = torch.cat([positive, negative], 1) / self.config.temperature
        with torch.no_grad():
            moved = torch.lerp(queries.detach(), entries, self.config.bank_momentum)
            self.bank[gather(indices)] = gather(F.normalize(moved, dim=1))
        return logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)


def build_mechanism(config: PretrainConfig, samples: int) -> Mechanism:
    """Build the config's mechanism with torch's current random state.

    Args:
        config: The stage's config.
        samples: Size of the training set; the memory bank has an entry for each.
    """
    if config.mechanism == "moco":
        return MomentumContrast(config)
    if config.mechanism == "end_to_end":
        return EndToEnd(config)
    return MemoryBank(config, samples)


class _Gather(torch.autograd.Function):
    """Concatenate (N, D) of all ranks, gradients flowing back to each."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return gather(tensor)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        if dist.is_initialized():
            dist.all_reduce(total)  # every rank's loss depends on every key
        return own_share(total)
