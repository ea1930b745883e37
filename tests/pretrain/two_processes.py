"""What a process of a two-process training computes, for the tests to compare."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from components.pretrain import PretrainConfig
from components.pretrain.mechanisms import build_mechanism
from components.pretrain.shuffling import deal, deal_view, draw_order
from components.training import distributed
from components.vision.batch import Batch
from components.vision.config import AugmentationConfig
from components.vision.device import finish_views


def share(tensor: Tensor) -> Tensor:
    size = len(tensor) // distributed.world()
    return tensor[distributed.rank() * size : (distributed.rank() + 1) * size]


def contrast_once(
    config: PretrainConfig, batch: dict[str, Tensor], device: str = "cpu"
) -> dict[str, Any]:
    """Return the global batch's logits, a gradient, and the queue or bank after it."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(config.seed)
    mechanism = build_mechanism(config, 50).to(device).train()
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    mine = {name: share(tensor) for name, tensor in batch.items()}
    mine["drawn"] = batch["drawn"]
    order = draw_order(len(batch["key"]), seed=5)
    mine |= {"key": deal(mine["key"], order), "places": torch.argsort(order).to(device)}
    logits, targets = mechanism.contrast(mine)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    loss.backward()
    gradient = torch.stack(
        [
            parameter.grad
            for name, parameter in mechanism.named_parameters()
            if name.endswith("head.0.weight") and parameter.grad is not None
        ]
    )
    if distributed.world() > 1:
        dist.all_reduce(gradient)
        gradient /= distributed.world()
    return {
        "logits": distributed.gather(logits.detach()).cpu().numpy(),
        "gradient": gradient.cpu().numpy(),
        "state": {
            name: tensor.cpu().numpy() for name, tensor in mechanism.named_buffers(recurse=False)
        },
    }


def deal_and_count(images: Tensor, order: Tensor) -> dict[str, Any]:
    """Deal images; return those of both ranks, and the bytes that this one sent the other."""
    sent = []
    original = dist.all_to_all_single

    def counted(output: Tensor, rows: Tensor, received: Any, given: list[int], **more: Any) -> Any:
        others = sum(given) - given[distributed.rank()]
        sent.append(others * rows[0].numel() * rows.element_size())
        return original(output, rows, received, given, **more)

    dist.all_to_all_single = counted  # type: ignore[assignment]
    mine = deal(share(images), order)
    gathered = distributed.gather(share(images))[share(order)]
    return {
        "dealt": distributed.gather(mine),
        "gathered": distributed.gather(gathered),
        "sent_bytes": sum(sent),
    }


def deal_batch(config: AugmentationConfig, batch: Batch, order: Tensor) -> Tensor:
    """Return the dealt key views of both ranks; the ranks' batches have their own operations."""
    size = len(batch) // distributed.world()
    mine = slice(distributed.rank() * size, (distributed.rank() + 1) * size)
    colours = []
    for one in batch.colours:
        mix, hue = one.mix[mine], one.hue[mine]
        used = int(
            (mix != torch.tensor([1.0, 0, 0, 0])).any(2).any(0).logical_or((hue != 0).any(0)).sum()
        )
        colours.append(type(one)(mix[:, :used], hue[:, :used], one.blur[mine]))
    own = Batch(
        views=tuple(view[mine] for view in batch.views),
        colours=tuple(colours),
        labels=batch.labels[mine],
        indices=batch.indices[mine],
    )
    _, key = finish_views(deal_view(own, 1, order, torch.device("cpu")), config)
    return distributed.gather(key)
