"""The truths of `kernel_truths.py`: on a GPU where there is one, else in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import torch

from components.vision import kernels

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

    def test_a_gpu_without_what_kernels_are_made_with_goes_on_without(
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))

        with structlog.testing.capture_logs() as logs:
            assert not kernels.available.__wrapped__()

        (line,) = logs
        assert line["log_level"] == "warning"
        assert line["why"]  # Triton's words: here that there is no driver
