"""What the miniature is for: that the order of its rows says something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.metrics import read_metrics

pytestmark = pytest.mark.slow


def test_momentum_contrast_learns_better_features_than_random_ones(tmp_path: Path) -> None:
    """Table 1's comparison, of fewer images for the same number of steps: 18 and 61 %."""
    command = [sys.executable, "-m", "pipelines", "run", "linear", "--scale", "digits"]
    command += ["--rows", "random,moco_in1m", "--set", "digits.train_scenes=1600"]
    command += ["--set", "pretrain.epochs=6", "--set", "classification.linear.epochs=4"]
    command += ["--set", "digits.pictures.train=20", "--set", "digits.pictures.val=20"]
    result = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "MOCO_RUNS": str(tmp_path)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (run,) = (path for path in tmp_path.iterdir() if (path / "plan.json").exists())
    top1 = {
        row: read_metrics(run / f"linear_{row}_0" / "metrics").values["top1"]
        for row in ("random", "moco_in1m")
    }
    assert top1["random"] + 20 < top1["moco_in1m"]
