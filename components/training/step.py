"""One step of training, launched piece by piece, or all at once as a CUDA graph."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from components.core.log import get_logger
from components.training.learner import Batch
from components.training.machine import Arithmetic

log = get_logger(__name__)

WARM_UP = 11
"""Steps that are launched piece by piece before one is captured: what torch asks for where
gradients are exchanged. They are steps of the training like all others."""


class TrainingStep(Protocol):
    """A step of training: forward, backward, update."""

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Launch it; return the loss and what else is recorded, scalars on the device.

        On a GPU nothing has been waited for. What is returned holds until the next call.
        """
        ...


class LaunchedStep:
    """Launches each operation by itself."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        arithmetic: Arithmetic,
        clip: float | None,
    ) -> None:
        """Remember what to train.

        Args:
            module: Returns `Losses` for a batch.
            optimizer: Of its parameters.
            scaler: Of fp16's gradients; disabled for any other precision.
            arithmetic: Of the forward pass.
            clip: Largest norm of the gradient; None for none.
        """
        self.module = module
        self.optimizer = optimizer
        self.scaler = scaler
        self.arithmetic = arithmetic
        self.clip = clip
        (self.device,) = {p.device for group in optimizer.param_groups for p in group["params"]}

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Launch a step."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.arithmetic.autocast(self.device):
            loss, figures = self.module(batch)
        self.scaler.scale(loss).backward()
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            learned = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(learned, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {
            "loss": loss.detach(),
            **{name: figure.detach() for name, figure in figures.items()},
        }


class CapturedStep:
    """Launches a step as one CUDA graph, once its kernels have all run.

    A GPU's small share of a batch is bound by the thousand launches of a step, not by arithmetic.
    """

    def __init__(self, step: LaunchedStep, stream: torch.cuda.Stream) -> None:
        """Capture nothing yet.

        Args:
            step: Does the same to any batch of the same shapes, without waiting for the device.
            stream: Beside the current one, for all that goes before the capture, as torch asks.
        """
        self._step = step
        self._stream = stream
        self._launched = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}
        self._figures: Mapping[str, Tensor] = {}

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Launch a step; a batch of other shapes than the captured one's goes piece by piece."""
        if self._launched < WARM_UP:
            self._launched += 1
            return self._launch(batch)
        if self._graph is None:
            self._capture(batch)
        if {name: tensor.shape for name, tensor in batch.items()} != {
            name: tensor.shape for name, tensor in self._inputs.items()
        }:
            return self._launch(batch)
        assert self._graph is not None
        for name, tensor in batch.items():
            self._inputs[name].copy_(tensor)
        self._graph.replay()
        return self._figures

    def _launch(self, batch: Batch) -> Mapping[str, Tensor]:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            figures = self._step(batch)
        current.wait_stream(self._stream)
        return figures

    def _capture(self, batch: Batch) -> None:
        self._inputs = {name: torch.empty_like(tensor) for name, tensor in batch.items()}
        self._step.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on: one puts batches into page-locked memory, one saves.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._figures = self._step(self._inputs)
        self._graph = graph
        log.debug("step captured", after=self._launched)
