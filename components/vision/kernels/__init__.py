"""Kernels for GPUs, in Triton: in few passes over memory what takes torch several.

Each has a plain form in torch beside where it is used, which runs everywhere else and is its test.
"""

import functools
import os
import shutil
from importlib.util import find_spec

import torch

from components.core.log import get_logger

log = get_logger(__name__)

CAPABILITY = (8, 0)
"""The least that a GPU must be able to do, in NVIDIA's numbers: an A100's."""


def usable(tensor: torch.Tensor) -> bool:
    """Say whether kernels can be used for a tensor: on a recent GPU, outside of torch.compile."""
    return tensor.is_cuda and not torch.compiler.is_compiling() and available()


@functools.cache
def available() -> bool:
    """Say whether this machine can make kernels; a log says once what is missing."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY:
        return False
    lacking = [name for name, there in _needed().items() if not there]
    if lacking:
        log.warning("no kernels of our own, training is slower", missing=", ".join(lacking))
    return not lacking


def _needed() -> dict[str, bool]:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return {"triton": find_spec("triton") is not None, "a C compiler (gcc)": bool(compiler)}
