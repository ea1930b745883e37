"""What the loop has an eye on beside the steps: losses, progress, signals."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from components.core.log import get_logger
from components.training import distributed
from components.training.learner import Batch

log = get_logger(__name__)


@dataclass(frozen=True)
class Broken:
    """A step whose loss is not finite, and its batch."""

    step: int
    batch: Batch
    loss: float


class LossWatch:
    """Finds a loss that is not finite, without keeping a device waiting.

    On a GPU a loss is looked at while the step after it is under way.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Batch, Tensor, torch.cuda.Event] | None = None

    def add(self, step: int, batch: Batch, loss: Tensor) -> Broken | None:
        """Take the loss of a step that was launched; return the latest one that is known."""
        if not loss.is_cuda:
            return _broken(step, batch, loss)
        before = self.finish()
        value = torch.empty((), dtype=loss.dtype, pin_memory=True)
        value.copy_(loss, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = (step, batch, value, event)
        return before

    def finish(self) -> Broken | None:
        """Wait for the last step."""
        if self._pending is None:
            return None
        step, batch, value, event = self._pending
        self._pending = None
        event.synchronize()
        return _broken(step, batch, value)


def _broken(step: int, batch: Batch, loss: Tensor) -> Broken | None:
    value = float(loss)
    return None if math.isfinite(value) else Broken(step, batch, value)


class Reporter:
    """Tells how far a training is, about once a second."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.started = time.monotonic()
        self.first = done
        self.last = 0.0
        self.evaluated: dict[str, float] = {}

    def due(self, step: int) -> bool:
        """Say whether something is told at a step."""
        return distributed.rank() == 0 and (time.monotonic() - self.last >= 1 or step == self.total)

    def report(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell how far the training is, if it is time, its figures and those last evaluated."""
        if not self.due(step):
            return
        now = self.last = time.monotonic()
        rate = (step - self.first) / max(now - self.started, 1e-9)
        shown = {name: round(value, 4) for name, value in {**self.evaluated, **figures}.items()}
        log.info(
            "progress",
            done=step,
            total=self.total,
            unit="steps",
            per_second=round(rate, 2),
            **shown,
        )

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell what an evaluation found."""
        if distributed.rank() == 0:
            self.evaluated = dict(figures)
            shown = {name: round(value, 4) for name, value in figures.items()}
            log.info("evaluated", step=step, **shown)


@contextlib.contextmanager
def termination() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event that the loop looks at after each step."""
    event = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        event.set()

    previous = {
        number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
