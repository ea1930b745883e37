"""What a checkpoint does to the steps of a pre-training that go on beside it."""

from collections.abc import Iterator
from typing import Any

import torch

from components.pretrain.mechanisms import build_mechanism
from tests.benchmarks.gpu._measure import Always, Clock, in_the_loop
from tests.benchmarks.gpu.pretraining import CASES, images

INTERVAL = 60.0  # seconds between checkpoints at full scale
EACH = 2.0  # here: longer than one takes, for while it is saved no other begins


def run() -> Iterator[dict[str, Any]]:
    """Measure the time that steps lose to one checkpoint, over the interval between two."""
    config = CASES["batch 32, a GPU's share in the paper"].derive(lr=1e-4)
    query, key = images(config.batch_size)
    batch = {"query": query, "key": key, "places": torch.arange(len(key), device="cuda")}
    module = build_mechanism(config, 1)
    seconds = {}
    for every in (1e6, EACH):
        clock = Clock(Always(batch), seconds=8)
        changed = config.derive(checkpoint_seconds=every)
        in_the_loop(module, changed, clock, lambda raw, *_: raw)
        seconds[every] = clock.step_seconds
    # What one of these costs is lost once in an interval.
    lost = EACH * (1 - seconds[1e6] / seconds[EACH])
    yield {
        "name": "steps beside a checkpoint each 60 s / without",
        "ratio": round(1 + lost / INTERVAL, 5),
        "goal": 1.02,
        "lower_is_better": True,
        "detail": f"with one each {EACH:g} s {1e3 * seconds[EACH]:.2f} ms a step, without "
        f"{1e3 * seconds[1e6]:.2f}",
    }
