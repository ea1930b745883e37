"""A step of pre-training with ResNet-50 at 224 pixels, against the released code and lightly."""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from components.pretrain import PretrainConfig
from components.pretrain.mechanisms import build_mechanism
from components.training.learner import Batch
from tests.benchmarks.gpu._measure import Rate, ours, peers, row, skipped
from tests.benchmarks.gpu._moco import lightlys_step, released_step

PAIR = 419e6
"""Bytes of a pair of views: each map written and read as often as separate passes of batch norm
need, in half precision."""
CASES = {
    "batch 256 in sub-batches of 32": PretrainConfig(batch_size=256, sub_batch=32),
    "batch 32, a GPU's share in the paper": PretrainConfig(batch_size=32, sub_batch=32),
}


def run() -> Iterator[dict[str, Any]]:
    """Measure; every ratio is our rate over the peer's."""
    bandwidth = copy_bandwidth()
    for name, config in CASES.items():
        query, key = images(config.batch_size)
        own = our_rate(config, query, key)
        floor = Rate(bandwidth / PAIR, 0)
        released = peers(released_step(config, query, key), config.batch_size)
        yield row(f"pre-training step, {name} / the released code's", own, released, 2.5, "pairs/s")
        yield {
            **row(f"pre-training step, {name} / the floor", own, floor, None, "pairs/s"),
            "detail": f"{own.per_second:,.0f} pairs/s; memory moves {bandwidth / 1e12:.2f} TB/s, "
            f"so {floor.per_second:,.0f} is the floor",
        }
        yield _against_lightly(name, config, query, key)


def _against_lightly(
    name: str, config: PretrainConfig, query: Tensor, key: Tensor
) -> dict[str, Any]:
    title = f"pre-training step, {name}, MLP head / lightly's blocks in bf16"
    if find_spec("lightly") is None:
        return skipped(title, "lightly is not installed here")
    own = our_rate(config.derive(head="mlp"), query, key)
    peer = peers(lightlys_step(config, query, key), config.batch_size)
    return row(title, own, peer, 1.3, "pairs/s")


def our_rate(config: PretrainConfig, query: Tensor, key: Tensor) -> Rate:
    order = torch.randperm(len(key), device=key.device)
    batch: Batch = {"query": query, "key": key, "places": torch.argsort(order)}
    torch.manual_seed(0)
    return ours(build_mechanism(config, 1), config.derive(lr=1e-4), batch)


def images(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    query, key = torch.randn(2, count, 3, 224, 224, device="cuda").unbind()
    return query, key


def copy_bandwidth() -> float:
    """Bytes a second that a copy in device memory reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(4):
            target.copy_(source)
        torch.cuda.synchronize()
        best = max(best, 4 * 2 * len(source) / (time.perf_counter() - started))
    return best
