"""Kernels for GPUs, in Triton: in few passes over memory what takes torch several.

Each has a plain form in torch beside where it is used, which runs everywhere else and is its test.
"""

import functools
import subprocess
from importlib import import_module

import torch

from components.core.log import get_logger

log = get_logger(__name__)

CAPABILITY = (8, 0)
"""The least that a GPU must be able to do, in NVIDIA's numbers: an A100's."""

_TRITONS = (AssertionError, ImportError, OSError, RuntimeError, subprocess.SubprocessError)
"""What Triton raises without a driver, a compiler, Python's headers, or a place to write to."""


def usable(tensor: torch.Tensor) -> bool:
    """Say whether kernels can be used for a tensor: on a recent GPU, outside of torch.compile."""
    return tensor.is_cuda and not torch.compiler.is_compiling() and available()


@functools.cache
def available() -> bool:
    """Say whether this machine can make kernels; a log says once why not."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY:
        return False
    try:
        # Compiles and loads what launches kernels, as the first of them would.
        driver = import_module("triton.runtime").driver
        driver.active.get_current_device()
    except _TRITONS as error:
        log.warning("no kernels of our own, training is slower", why=str(error))
        return False
    return True
