"""What this machine can do of what a config asks, found out before any data is read."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from pydantic import JsonValue

from components.core.errors import ConfigError
from components.training import distributed
from components.training.config import TrainingConfig

BF16 = (8, 0)
"""Compute capability of the first GPUs with bf16: the A100's."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """How a training computes: what `auto` became.

    Attributes:
        precision: Of the forward pass.
        channels_last: Whether channels are next to each other in memory.
        compiled: Whether the model is compiled.
    """

    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    compiled: bool

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Return what the forward pass runs in."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, _DTYPES[self.precision])

    def told(self) -> dict[str, JsonValue]:
        """Return what manifests and reports say of it, and of the device."""
        return {**asdict(self), "device": device_name()}


def device_name() -> str:
    """Return what the device of this process is called: `NVIDIA H200`, or `CPU`."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def choose_arithmetic(config: TrainingConfig, begun: Mapping[str, Any] | None = None) -> Arithmetic:
    """Decide how to compute on this process's device.

    Args:
        config: The stage's; what it says is taken.
        begun: What the checkpoint that is continued says of its training, which stays so
            where the config says `auto`.

    Raises:
        ConfigError: if the device does not have the precision.
    """
    precision = config.precision
    if precision == "auto" and begun is not None:
        precision = begun["precision"]
        reason = _lacks(precision)
        if reason:
            raise ConfigError(
                f"the training began in {precision}, and {reason}. Continue it on a GPU that has "
                "it, or remove the state folder to start over in what this one has"
            )
    elif precision == "auto":
        precision = _best_precision()
    elif reason := _lacks(precision):
        raise ConfigError(
            f"precision: {precision} is not to be had: {reason}; fp32 and fp16 are, and auto takes "
            f"{_best_precision()}"
        )
    channels_last = config.channels_last
    if channels_last == "auto":
        channels_last = begun["channels_last"] if begun else torch.cuda.is_available()
    return Arithmetic(precision, channels_last, config.compile)


def check_machine(config: TrainingConfig, share: int = 1) -> None:
    """Refuse what cannot be trained here, before data is read or a process started.

    Args:
        config: The stage's.
        share: What a process's part of a batch has to be a multiple of.

    Raises:
        ConfigError: naming the nearest values that work.
    """
    world = distributed.planned_world(config.processes)
    unit = world * share
    if config.batch_size % unit:
        below = config.batch_size // unit * unit
        parts = f" in sub-batches of {share}" if share > 1 else ""
        nearest = f"{below} and {below + unit}" if below else str(unit)
        raise ConfigError(
            f"batch_size: {config.batch_size} cannot be shared by {world} process(es){parts}; the "
            f"nearest that can: {nearest}"
        )
    choose_arithmetic(config)


def _best_precision() -> Literal["fp32", "bf16", "fp16"]:
    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability() >= BF16 else "fp16"


def _lacks(precision: str) -> str:
    """Say why a precision cannot be had here; an empty text if it can."""
    if precision != "bf16" or not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) >= BF16:
        return ""
    return (
        f"{device_name()} (compute capability {major}.{minor}) has no bf16, which needs "
        f"{BF16[0]}.{BF16[1]} or more"
    )
