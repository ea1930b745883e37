"""Tiny pipelines of shell commands on a real Kubeflow Pipelines server."""

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.stage import Stage
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.status import refresh
from pipelines.plan import Plan
from pipelines.runs.folder import Run, create_run
from tests.pipelines.conftest import toy, world
from tests.servers.cluster import TestCluster, wait_for

__all__ = ["kubeflow", "toy", "world"]

STEP_SECONDS = 300
# The paths of the outputs are the arguments.
WRITES = (
    'mkdir -p "$1" "$2"; echo "hello from $0"; '
    'echo "{}" > "$1/manifest.json"; echo "{}" > "$2/manifest.json"'
)


@dataclass(frozen=True)
class Does:
    """What a step of a tiny pipeline does, after which other one, and what its pod asks for."""

    script: str = WRITES
    after: str | None = None
    image: str | None = None
    memory: str | None = "64Mi"  # none: what a user gave as a parameter, and is no size
    gpus: int = 0
    root: bool = False
    cache: bool = False


@dataclass
class Kubeflow:
    """A pipeline server, and the cluster behind it."""

    cluster: Cluster
    toy: Stage[Any]
    image: str
    admin: TestCluster

    def submit(self, runs: Path, steps: Mapping[str, Does], name: str | None = None) -> Run:
        """Start a run of a pipeline, and write it down as `submit` does."""
        import kfp_server_api as api

        name = name or f"moco-test-{secrets.token_hex(4)}"
        pipeline_spec, platform_spec = self._compiled(name, steps)
        started = self.cluster.runs.run_service_create_run(
            api.V2beta1Run(
                display_name=name,
                pipeline_spec={"pipeline_spec": pipeline_spec, "platform_spec": platform_spec},
                runtime_config=api.V2beta1RuntimeConfig(pipeline_root=self.cluster.options.root),
            )
        )
        run = create_run(runs, self._plan(steps), executed_here=False)
        place = ClusterRun(
            run=started.run_id,
            pipeline=name,
            namespace=self.cluster.options.namespace,
            server=self.cluster.server_name,
            artifacts=f"{self.cluster.options.root}/{name}/{started.run_id}",
        )
        place.write(run)
        return run

    def wait(self, run: Run, condition: Callable[[], Any], seconds: float = STEP_SECONDS) -> Any:
        """Look at a run until something is true of it."""

        def looked() -> Any:
            refresh(run, self.cluster)
            return condition()

        try:
            return wait_for(f"run {run.id}", looked, seconds)
        except AssertionError:
            pytest.fail(f"{run.state}: {run.statuses()}")

    def end(self, run: Run) -> None:
        """Wait until a run has ended."""
        self.wait(run, lambda: run.state != "running")

    def pods(self, run: Run) -> list[str]:
        """Return the names of the pods that ran steps' own commands."""
        found = self.admin.core.list_namespaced_pod(
            ClusterRun.of(run).namespace,
            label_selector=f"pipeline/runid={ClusterRun.of(run).run},moco-transfer/stage",
        )
        return [pod.metadata.name for pod in found.items]

    def remove_pods(self, run: Run) -> None:
        """Delete all pods of a run, as a cluster does some time after it."""
        self.admin.core.delete_collection_namespaced_pod(
            ClusterRun.of(run).namespace,
            label_selector=f"pipeline/runid={ClusterRun.of(run).run}",
            grace_period_seconds=0,
        )
        wait_for("the pods to go", lambda: not self.pods(run))

    def _plan(self, steps: Mapping[str, Does]) -> Plan:
        plan = Plan("tiny", "digits")
        for seed, (name, does) in enumerate(steps.items()):
            inputs = {"model": plan.steps[does.after].output("model")} if does.after else {}
            plan.add(self.toy, name, self.toy.config(seed=seed), **inputs)
        return plan

    def _compiled(self, name: str, steps: Mapping[str, Does]) -> list[Any]:
        from kfp import compiler, dsl

        def add_tasks(memory: str = "plenty") -> None:
            self._add_tasks(steps, memory)

        pipeline = dsl.pipeline(add_tasks, name=name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pipeline.yaml")
            compiler.Compiler().compile(pipeline, str(path))
            return list(yaml.safe_load_all(path.read_text()))

    def _add_tasks(self, steps: Mapping[str, Does], memory: Any) -> None:
        from kfp import components, kubernetes

        tasks: dict[str, Any] = {}
        for name, does in steps.items():
            inputs = {"model_in": tasks[does.after].outputs["model"]} if does.after else {}
            component = json.dumps(_component(name, does.script, self.image, list(inputs)))
            task = components.load_component_from_text(component)(**inputs)
            task.set_display_name(name)
            task.set_caching_options(does.cache)
            task.set_container_image(does.image or self.image)
            task.set_cpu_limit("100m").set_memory_limit(does.memory or memory)
            if does.gpus:
                task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(does.gpus)
            task.set_retry(2, backoff_duration="1s", backoff_max_duration="3600s")
            if not does.root:
                kubernetes.set_security_context(task, 1000, 1000, True)
            kubernetes.add_pod_label(task, "moco-transfer/stage", name)
            tasks[name] = task


def _component(name: str, script: str, image: str, inputs: list[str]) -> dict[str, Any]:
    outputs = {"model": "Model", "metrics": "Metrics"}
    places = [f"{{{{$.outputs.artifacts['{port}'].path}}}}" for port in outputs]
    sources = [f"{{{{$.inputs.artifacts['{port}'].path}}}}" for port in inputs]
    return {
        "name": name,
        "inputs": [{"name": port, "type": "Model"} for port in inputs],
        "outputs": [{"name": port, "type": kind} for port, kind in outputs.items()],
        "implementation": {
            "container": {
                "image": image,
                "command": ["sh", "-c"],
                "args": [script, name, *places, *sources],
            }
        },
    }


@pytest.fixture(scope="module")
def kubeflow(cluster: TestCluster, pod_image: str, world: Path) -> Iterator[Kubeflow]:
    """Give the pipeline server of the environment, or skip with the reason."""
    from components.core.stage import load_stage

    server = os.environ.get("MOCO_TEST_KFP")
    if not server:
        pytest.skip("no Kubeflow Pipelines: MOCO_TEST_KFP names no server")
    options = ClusterOptions(server=server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        patch.setenv(
            "MOCO_S3_ENDPOINT", os.environ.get("MOCO_TEST_KFP_STORE", options.store_endpoint)
        )
        for name in ("AWS_ACCESS_KEY_ID", "MINIO_ACCESS_KEY", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        yield Kubeflow(Cluster(options), load_stage("toy"), pod_image, cluster)
