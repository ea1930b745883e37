"""What a process of a two-process training computes, for the tests to compare."""

from typing import Any

import torch
from torch import Tensor

from components.pretrain import PretrainConfig
from components.pretrain.batch_norm import shuffle_across_gpus, unshuffle
from components.pretrain.mechanisms import build_mechanism
from components.training import distributed


def share(tensor: Tensor) -> Tensor:
    size = len(tensor) // distributed.world()
    return tensor[distributed.rank() * size : (distributed.rank() + 1) * size]


def contrast_once(config: PretrainConfig, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Return the global batch's logits, the queue after it, and whether unshuffling undid."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    mechanism = build_mechanism(config, 50).train()
    mine = {name: share(tensor) for name, tensor in batch.items()}
    dealt, permutation = shuffle_across_gpus(mine["query"], seed=5)
    undone = unshuffle(dealt.flatten(1), permutation)
    logits, targets = mechanism.contrast(mine)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    loss.backward()
    gradient = mechanism.query.head[0].weight.grad
    assert isinstance(gradient, Tensor)
    if distributed.world() > 1:
        torch.distributed.all_reduce(gradient)
        gradient /= distributed.world()
    return {
        "logits": distributed.gather(logits.detach()).numpy(),
        "gradient": gradient.numpy(),
        "state": {name: tensor.numpy() for name, tensor in mechanism.named_buffers(recurse=False)},
        "undone": all(distributed.gather_objects(torch.equal(undone, mine["query"].flatten(1)))),
        "mixed": any(distributed.gather_objects(not torch.equal(dealt, mine["query"]))),
    }
