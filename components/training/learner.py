"""What a stage brings to the training loop."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""What a learner's module is called with, on the device."""
Prepare = Callable[[Any, torch.device, int], Batch]
"""Turns a raw batch, a device and the step that it is for (from 0) into a batch there."""
Losses = tuple[Tensor, Mapping[str, Tensor]]
"""The loss to minimise, a scalar, and further scalars to record."""


class Batches(Protocol):
    """The training data as the loop sees it: the same batches whenever they are asked for."""

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        ...

    def between(self, first: int, end: int) -> Iterator[Any]:
        """Yield the raw batches of steps `first` to `end` - 1 of a training, across epochs."""
        ...


@dataclass
class Learner:
    """What a stage brings to the loop.

    Attributes:
        module: Called with a batch, it returns `Losses`. All that is learned is in its
            parameters and buffers.
        batches: The training data of this rank.
        prepare: Turns a raw batch into one on a device, before mixed precision applies, and
            while the step before it may be under way.
        evaluate: Called on every rank with the number of steps done; its figures go into the
            history. It may change buffers no more than it restores; random numbers that it
            draws are not missed by the training.
        evaluate_every: Steps between evaluations.
        evaluate_last: Whether the end is evaluated too, whatever the steps before it.
        norm_weight_decay: Of the parameters of normalisation, if other than the config's.
        uniform: Whether batches have equal shapes, and the module does the same to each without
            waiting for the device: then a step can be launched as a whole.
    """

    module: nn.Module
    batches: Batches
    prepare: Prepare
    evaluate: Callable[[int], Mapping[str, float]] | None = None
    evaluate_every: int = 1
    evaluate_last: bool = True
    norm_weight_decay: float | None = None
    uniform: bool = False
