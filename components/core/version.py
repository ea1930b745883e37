"""Which code runs: what decides whether an earlier result can be reused."""

import functools
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import components
from components.core.code_digest import code_digest
from components.core.config import C
from components.core.manifest import Code
from components.core.stage import Stage

IN_CODE_DIGEST = False  # it names what runs, and runs none of it


def code_of(stage: Stage[C], config: C) -> Code:
    """Identify the code of a stage; what counts is said in `components.core.code_digest`."""
    return Code(version=_version(), commit=commit(), digest=code_digest(stage, config))


@functools.cache
def image(*packages: str) -> str:
    """Name the environment: the image by its digest, or the versions of a local one.

    Args:
        *packages: What a config requires beyond its stage's own packages.
    """
    if name := os.environ.get("MOCO_IMAGE"):
        return name
    versions = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for package in ("torch", "torchvision", *packages):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "local: " + ", ".join(versions)


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("moco-transfer")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def commit() -> str | None:
    """Return the commit that the code is of, as the image or the repository says."""
    if told := os.environ.get("MOCO_COMMIT"):
        return told
    command = ["git", "-C", str(Path(components.__path__[0]).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
