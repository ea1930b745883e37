"""What an asynchronous checkpoint does to the steps that run beside it."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from components.core.store import open_store
from components.pretrain import PretrainConfig
from components.pretrain.mechanisms import build_mechanism
from components.training.checkpoint import Checkpointer, rng_state

INTERVAL = 60.0  # seconds between checkpoints at full scale


def run() -> list[dict[str, Any]]:
    """Measure the time that steps lose to one checkpoint, over the interval between two."""
    config = PretrainConfig(batch_size=16, sub_batch=16)
    mechanism = build_mechanism(config, 1).train()
    optimizer = torch.optim.SGD(mechanism.query.parameters(), lr=0.03, momentum=0.9)
    views = {"query": torch.randn(16, 3, 64, 64), "key": torch.randn(16, 3, 64, 64)}

    def step() -> float:
        start = time.perf_counter()
        loss, _ = mechanism(views)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return time.perf_counter() - start

    plain = statistics.median([step() for _ in range(6)][1:])
    lost = []
    with tempfile.TemporaryDirectory() as name:
        checkpointer = Checkpointer(open_store(str(Path(name) / "state")), {})
        for number in range(3):
            start = time.perf_counter()
            state = {"module": mechanism.state_dict(), "optimizer": optimizer.state_dict()}
            checkpointer.save(number, {**state, "rng": [rng_state()]})
            extra = time.perf_counter() - start
            while checkpointer.saving:
                extra += step() - plain
            lost.append(extra)
    inflation = statistics.median(lost) / INTERVAL
    return [
        {
            "name": "step time during asynchronous checkpoints / without",
            "ratio": round(1 + inflation, 4),
            "goal": 1.02,
            "lower_is_better": True,
            "detail": f"{statistics.median(lost):.2f} s lost to one checkpoint of ResNet-50, "
            f"queue and momentum; one each {INTERVAL:.0f} s; a step takes {plain:.2f} s",
        }
    ]
