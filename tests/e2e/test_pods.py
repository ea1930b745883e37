"""Each stage of the miniature as a pod of a real cluster, its artifacts in a real store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.store import open_store
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.names import pipeline_name
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.recipes import build_plan, load_recipe
from pipelines.runs.folder import create_run
from tests.e2e.pods import PodLauncher
from tests.pipelines.tiny import EVERY_STAGE
from tests.servers.cluster import TestCluster
from tests.servers.minio import MinioServer

SECRET = "mlpipeline-minio-artifact"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_miniature_runs_pod_by_pod_and_its_report_is_rebuilt_from_what_was_pulled(
    cluster: TestCluster,
    namespace: str,
    pod_image: str,
    node_minio: MinioServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in node_minio.environment().items():
        monkeypatch.setenv(name, value)
    secret = {"accesskey": node_minio.access_key, "secretkey": node_minio.secret_key}
    cluster.core.create_namespaced_secret(
        namespace, {"metadata": {"name": SECRET}, "stringData": secret}
    )
    plan = build_plan(load_recipe("appendix"), EVERY_STAGE)
    root = f"s3://{node_minio.make_bucket()}/artifacts"
    compiled = tmp_path / "appendix.yaml"
    options = ClusterOptions(
        images=dict.fromkeys(("torch", "detectron2"), pod_image),
        store_endpoint=node_minio.endpoint,
        store_region="us-east-1",
    )
    compile_plan(plan, compiled, options)
    environment = {"MOCO_S3_ENDPOINT": node_minio.endpoint, "AWS_REGION": "us-east-1"}
    launcher = PodLauncher(
        compiled,
        root=root,
        work=tmp_path,
        environment=environment,
        core=cluster.core,
        namespace=namespace,
    )

    launcher.run(timeout=900)

    # The run as `submit` writes it down.
    run = create_run(tmp_path / "runs", plan, executed_here=False)
    name = pipeline_name(plan)
    place = ClusterRun(
        run=launcher.run_id,
        pipeline=name,
        namespace=namespace,
        server="none",
        artifacts=f"{root}/{name}/{launcher.run_id}",
    )
    place.write(run)
    run.write_record(run.record.model_copy(update={"state": "finished"}))
    bundle = tmp_path / "bundle"
    _moco(tmp_path, "pull", run.id, "--output", str(bundle))
    offline = {**os.environ, "MOCO_S3_ENDPOINT": "http://127.0.0.1:9", "MOCO_RUNS": str(bundle)}
    out = tmp_path / "report"
    _moco(tmp_path, "report", str(bundle / run.id), "-o", str(out), env=offline)
    (report,) = (
        entry.key for entry in open_store(root).list("") if entry.key.endswith("/report.json")
    )
    made = json.loads(open_store(root).read(report))
    assert json.loads((out / "report.json").read_text()) == made
    assert len(made["cells"] if "cells" in made else made["tables"]) > 0


def _moco(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"MOCO_RUNS": str(folder / "runs"), **(env or os.environ)},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
