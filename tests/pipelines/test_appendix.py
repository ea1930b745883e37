"""The main job: the appendix in miniature, from its compiled file, and what it shows."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.core.manifest import read_manifest
from components.core.metrics import read_metrics
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.local.forkserver import ForkServer
from pipelines.recipes import build_plan, load_recipe
from pipelines.tables import filled_cells
from tests.pipelines.launcher import Launcher
from tests.pipelines.tiny import EVERY_STAGE


@pytest.mark.slow
def test_every_command_of_the_compiled_appendix_runs_to_a_report(tmp_path: Path) -> None:
    plan = build_plan(load_recipe("appendix"), EVERY_STAGE)
    compiled = tmp_path / "appendix.yaml"
    images = {name: f"example/{name}@sha256:12" for name in ("torch", "detectron2")}
    compile_plan(plan, compiled, ClusterOptions(images=images))
    threads = {"OMP_NUM_THREADS": "1"}
    server = ForkServer(threads)
    while not server.is_ready():
        time.sleep(0.1)
    launcher = Launcher(
        compiled,
        root=str(tmp_path / "bucket"),
        work=tmp_path / "pods",
        secrets={"mlpipeline-minio-artifact": {"accesskey": "a", "secretkey": "b"}},
        environment=threads,
        server=server,
    )

    launcher.run()

    server.stop()

    folder = Path(launcher.pod("report").output_uri("report"))
    report = json.loads((folder / "report.json").read_text())
    keys = {name.removeprefix("metrics.") for name in read_manifest(folder).inputs}
    assert keys == set(filled_cells(plan))
    assert "figure_a1" in (folder / "index.html").read_text()
    assert report["scale"] == "digits"


@pytest.mark.slow
def test_momentum_contrast_learns_better_features_than_random_ones(tmp_path: Path) -> None:
    """Table 1's comparison in miniature: 46 and 75 % after three of its six epochs."""
    command = [sys.executable, "-m", "pipelines", "run", "linear", "--scale", "digits"]
    command += ["--rows", "random,moco_in1m", "--set", "pretrain.epochs=3"]
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
