"""What each part of the fast pre-training step is worth: the whole, and the whole without it."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from components.pretrain import PretrainConfig
from components.vision import kernels
from tests.benchmarks.gpu._measure import Rate
from tests.benchmarks.gpu.pretraining import CASES, images, our_rate

CHANGES: dict[str, dict[str, Any]] = {
    "a graph of the whole step": {"cuda_graph": False},
    "channels-last memory (and so its kernels)": {"channels_last": False},
    "bf16 instead of fp32": {"precision": "fp32"},
    "kernels instead of torch.compile": {"compile": True},
}


def run() -> Iterator[dict[str, Any]]:
    """Measure; every ratio is the rate of the whole over that without the part."""
    for name, config in CASES.items():
        query, key = images(config.batch_size)
        whole = our_rate(config, query, key)
        with patch.object(kernels, "usable", lambda _: False):
            yield _row(name, "kernels for batch norm", whole, our_rate(config, query, key))
        for part, change in CHANGES.items():
            if part.endswith("torch.compile") and name.startswith("batch 32"):
                continue  # it takes half a minute each time
            yield _row(name, part, whole, our_rate(_changed(config, change), query, key))


def _changed(config: PretrainConfig, change: dict[str, Any]) -> PretrainConfig:
    return config.derive(**change)


def _row(case: str, part: str, whole: Rate, without: Rate) -> dict[str, Any]:
    return {
        "name": f"pre-training step, {case}: {part}",
        "ratio": round(whole.per_second / without.per_second, 2),
        "goal": None,
        "detail": f"{whole.per_second:,.0f} with, {without.per_second:,.0f} pairs/s without; "
        f"{whole.peak / 1e9:.1f}, {without.peak / 1e9:.1f} GB",
    }
