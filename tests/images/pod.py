"""Runs command lines in images that were built here, in the conditions of a pod."""

import subprocess
from collections.abc import Callable

import pytest

from images.build import ROOT, current_version

SECONDS = 400  # for what takes a few, on a machine with much else to do
# As *restricted* pods run: a user whom the image does not know, nothing to write to but /tmp.
RESTRICTED = [
    *("--read-only", "--tmpfs", "/tmp", "--user", "12345:12345", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--network", "none"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]


def built_image(name: str) -> str:
    """Return the reference of an image of this version; skip where it is not built."""
    reference = f"moco-transfer/{name}:{current_version(ROOT)}"
    present = subprocess.run(
        ["docker", "image", "inspect", reference], capture_output=True, check=False
    )
    if present.returncode:
        pytest.skip(f"{reference} is not here: `make images` builds it")
    return reference
