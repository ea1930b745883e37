"""Batches on the device, each prepared while the step before it is under way."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from components.training.learner import Batch, Prepare


class Ahead:
    """Takes raw batches and gives prepared ones, one after the other.

    On a GPU the copy and the preparation run on a stream of their own, beside the step that was
    launched before. On a processor a batch is made when it is asked for.

    Attributes:
        waited: Seconds that the device had nothing to do for want of a raw batch.
    """

    def __init__(
        self, raw_batches: Iterator[Any], prepare: Prepare, device: torch.device, step: int
    ) -> None:
        """Prepare nothing yet.

        Args:
            raw_batches: From the step `step` on.
            prepare: It draws nothing from torch's random state.
            device: Where batches go.
            step: Of the first one.
        """
        self._raw = raw_batches
        self._prepare = prepare
        self._device = device
        self._step = step
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._made: Batch | None = None
        self._done: torch.cuda.Event | None = None
        self.waited = 0.0
        self._late: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    def fetch(self) -> None:
        """Start to make the next batch, if that can be done beside other work.

        Called when a step has been launched: on a GPU, time counts as waited from its end.
        """
        if self._stream is None or self._made is not None:
            return
        self._count_wait()
        stepped = _timed(torch.cuda.current_stream(self._device))
        raw = next(self._raw, None)
        if raw is None:
            return
        self._late = (stepped, _timed(self._stream))
        with torch.cuda.stream(self._stream):
            self._made = self._prepare(raw, self._device, self._step)
            self._done = self._stream.record_event()

    def take(self) -> Batch | None:
        """Return the next batch, None after the last; it is complete for the current stream."""
        if self._stream is None:
            asked = time.monotonic()
            raw = next(self._raw, None)
            self.waited += time.monotonic() - asked
            batch = None if raw is None else self._prepare(raw, self._device, self._step)
        else:
            self.fetch()
            batch, self._made = self._made, None
            if batch is not None:
                current = torch.cuda.current_stream(self._device)
                assert self._done is not None
                current.wait_event(self._done)
                for tensor in batch.values():
                    if tensor.is_cuda:
                        tensor.record_stream(current)
        self._step += batch is not None
        return batch

    def _count_wait(self) -> None:
        """Add what passed between the end of a step and the arrival of the next raw batch.

        The stream of preparations is empty when a batch arrives, so an event there has that time.
        A step that is still under way needs no look: its batch was there before its end.
        """
        if self._late is None:
            return
        stepped, arrived = self._late
        self._late = None  # counted once
        if stepped.query() and arrived.query():
            self.waited += max(0.0, stepped.elapsed_time(arrived) / 1000)


def _timed(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event
