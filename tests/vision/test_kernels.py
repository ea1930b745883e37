"""The truths of `kernel_truths.py`: on a GPU where there is one, else in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if torch.cuda.is_available():
    from tests.vision.kernel_truths import *  # noqa: F403
else:

    def test_kernels_in_the_interpreter() -> None:
        """In a process of its own: Triton has to know before anything imports it."""
        pytest.importorskip("triton", reason="needs Triton, which torch has on Linux only")
        file = Path(__file__).with_name("kernel_truths.py")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(file)]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout
