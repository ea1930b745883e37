"""Rates of steps on a GPU, ours in the training loop and a peer's in its own, and their ratio."""

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.training.config import TrainingConfig
from components.training.learner import Batch, Batches, Learner, Prepare
from components.training.loop import train
from components.training.step import WARM_UP

SECONDS = 2.5  # that a rate is measured over, about
LEAST = 5  # steps, however long they take


@dataclass(frozen=True)
class Rate:
    """Images (or pairs) a second, and the most memory that was allocated, bytes."""

    per_second: float
    peak: int


class Enough(Exception):  # noqa: N818 - not a fault
    """Ends a training that has been measured."""


class Clock:
    """Batches that tell how long steps take, and end the training after some seconds.

    The loop is never more than two steps ahead of the device, so over many steps the time between
    the batches that it asks for is that of the steps.
    """

    def __init__(
        self, batches: Batches, *, skipped: int = WARM_UP + 5, seconds: float = SECONDS
    ) -> None:
        self.batches = batches
        self.skipped = skipped
        self.seconds = seconds
        self.steps_taken = 0
        self.seconds_taken = 0.0

    @property
    def steps(self) -> int:
        return self.batches.steps

    @property
    def step_seconds(self) -> float:
        return self.seconds_taken / self.steps_taken

    def between(self, first: int, end: int) -> Iterator[Any]:
        started = 0.0
        for number, raw in enumerate(self.batches.between(first, end)):
            if number == self.skipped:
                started = time.perf_counter()
            elif number > self.skipped:
                self.steps_taken = number - self.skipped
                self.seconds_taken = time.perf_counter() - started
                if self.steps_taken >= LEAST and self.seconds_taken >= self.seconds:
                    raise Enough
            yield raw


class Always:
    """The same raw batch at every step."""

    steps = 10_000

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def between(self, first: int, end: int) -> Iterator[Any]:
        for _ in range(first, end):
            yield self.raw


def ours(
    module: nn.Module,
    config: TrainingConfig,
    batch: Batch,
    *,
    uniform: bool = True,
) -> Rate:
    """Measure our step alone, in the training loop: its batch is on the device already."""
    clock = Clock(Always(batch), skipped=WARM_UP + 5 if uniform else 4)
    return in_the_loop(
        module,
        config,
        clock,
        lambda raw, *_: raw,
        uniform=uniform,
    )


def in_the_loop(
    module: nn.Module,
    config: TrainingConfig,
    clock: Clock,
    prepare: Prepare,
    *,
    uniform: bool = True,
) -> Rate:
    """Measure the training loop for as long as the clock runs."""
    free()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        train(
            Learner(module, clock, prepare, uniform=uniform),
            config.derive(log_every=1000),
            total_steps=1_000_000,
            state=f"{folder}/state",
            identity={},
            output=Path(folder),
        )
    return Rate(config.batch_size / clock.step_seconds, torch.cuda.max_memory_allocated())


def peers(step: Callable[[], object], images: int, *, warm_up: int = 8) -> Rate:
    """Measure a peer's step, launched over and over."""
    free()
    for _ in range(warm_up):
        step()
    torch.cuda.synchronize()
    started, done = time.perf_counter(), 0
    while done < LEAST or time.perf_counter() - started < SECONDS:
        step()
        done += 1
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / done
    return Rate(images / seconds, torch.cuda.max_memory_allocated())


def free() -> None:
    """Give back the memory of what was measured before."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def row(
    name: str, own: Rate, peer: Rate, goal: float | None, unit: str = "images/s"
) -> dict[str, Any]:
    """Return the row of two rates."""
    return {
        "name": name,
        "ratio": round(own.per_second / peer.per_second, 2),
        "goal": goal,
        "detail": f"{own.per_second:,.0f} against {peer.per_second:,.0f} {unit}; "
        f"{own.peak / 1e9:.1f} against {peer.peak / 1e9:.1f} GB",
    }


def skipped(name: str, why: str) -> dict[str, Any]:
    """Return the row of a comparison that was not made."""
    return {"name": name, "ratio": "skipped", "goal": None, "detail": why}
