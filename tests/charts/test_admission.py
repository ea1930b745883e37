"""Pods of every stage, as compiled with the chart's options, on a real API server."""

import copy
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.stage import stage_names
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.recipes import Options, ScaleName, build_plan, load_recipe
from tests.charts.chart import CHART, RELEASE, VARIANTS, Document, options, rendered
from tests.pipelines.golden import options_of
from tests.servers.cluster import TestCluster, wait_for
from tests.servers.helm import Helm

_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(?:pipelinechannel--)?(\w+)'\]\}\}")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Compiled:
    """A compiled recipe, of which pods are made as Kubeflow Pipelines makes them."""

    spec: Document
    platform: Document

    @classmethod
    def of(cls, recipe: str, scale: ScaleName, cluster: ClusterOptions, path: Path) -> "Compiled":
        """Compile a recipe with the options of a namespace."""
        chosen = Options(scale=scale, **options_of(recipe, scale))
        compile_plan(build_plan(load_recipe(recipe), chosen), path, cluster)
        spec, platform = yaml.load_all(path.read_text("utf-8"), yaml.CSafeLoader)
        return cls(spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])

    def pods(self, account: str, **parameters: str) -> Iterator[tuple[str, Document]]:
        """Yield the pod of every step that runs a container, with its module.

        Only the step's own container: those of the platform are the platform's.

        Args:
            account: Service account.
            **parameters: Of the pipeline, in place of their defaults.
        """
        definitions = self.spec["root"]["inputDefinitions"]["parameters"]
        values = {name: str(one["defaultValue"]) for name, one in definitions.items()} | parameters
        for label, executor in self.spec["deploymentSpec"]["executors"].items():
            if "container" in executor:
                container = executor["container"]
                image = self._argument(label, "image")
                pod = _pod(
                    container, self.platform.get(label, {}), {**values, "image": values[image]}
                )
                pod["metadata"]["name"] = label.removeprefix("exec-")[:50].rstrip("-")
                pod["spec"]["serviceAccountName"] = account
                yield container["command"][2], pod

    def _argument(self, label: str, name: str) -> str:
        """Return the pipeline's parameter that a task hands to its component."""
        component = label.replace("exec-", "comp-", 1)
        (argument, *_) = (
            task["inputs"]["parameters"][name]["componentInputParameter"]
            for task in self.spec["root"]["dag"]["tasks"].values()
            if task["componentRef"]["name"] == component
        )
        return str(argument)


def _pod(container: Document, platform: Document, values: Mapping[str, str]) -> Document:
    """Write a step's pod: what is compiled, and what Kubeflow Pipelines 2.17 adds to each."""

    def resolved(word: str) -> str:
        return _PARAMETER.sub(lambda found: values[found[1]], word)

    sizes = container.get("resources", {})
    limits = {
        "cpu": resolved(sizes["resourceCpuLimit"]),
        "memory": resolved(sizes["resourceMemoryLimit"]),
    }
    if "accelerator" in sizes:
        gpus = sizes["accelerator"]
        limits[resolved(gpus["resourceType"])] = resolved(gpus["resourceCount"])
    volumes: list[Document] = []
    mounts: list[Document] = []
    for one in platform.get("emptyDirMounts", ()):
        size = {"medium": one.get("medium", ""), "sizeLimit": one.get("sizeLimit")}
        volumes.append({"name": one["volumeName"], "emptyDir": size})
        mounts.append({"name": one["volumeName"], "mountPath": one["mountPath"]})
    for one in platform.get("pvcMount", ()):
        claim = values[one["pvcNameParameter"]["componentInputParameter"]]
        volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": claim, "mountPath": one["mountPath"]})
    identity = platform["securityContext"]
    return {
        "metadata": copy.deepcopy(platform["podMetadata"]),
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "nodeSelector": platform.get("nodeSelector", {}).get("labels"),
            "tolerations": platform.get("tolerations"),
            "volumes": volumes,
            "containers": [
                {
                    "name": "main",
                    "image": resolved(container["image"]),
                    "command": container["command"],
                    "args": container["args"],
                    "env": container["env"],
                    "resources": {"limits": limits},
                    "volumeMounts": mounts,
                    "securityContext": {
                        "runAsUser": int(identity["runAsUser"]),
                        "runAsGroup": int(identity["runAsGroup"]),
                        "runAsNonRoot": identity["runAsNonRoot"],
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
        },
    }


@pytest.mark.parametrize("scale", ["full", "digits"])
def test_every_stages_pod_is_admitted_under_restricted(
    helm: Helm,
    there: Helm,
    cluster: TestCluster,
    namespace: str,
    tmp_path: Path,
    scale: ScaleName,
) -> None:
    values = VARIANTS["gpus"]
    there("install", RELEASE, CHART, *values)
    given = options(rendered(helm, *values))

    pods: dict[str, Document] = {}
    for gpus in (8, 4) if scale == "full" else (8,):  # a pre-training takes one node, or two
        there_are = given.derive(gpus_per_node=gpus)
        for recipe in ("appendix", "transfer"):
            compiled = Compiled.of(recipe, scale, there_are, tmp_path / f"{recipe}.yaml")
            pods |= dict(compiled.pods(given.service_account or ""))
    # Measuring again is a step that people run by hand; no recipe has it.
    stages = {f"components.{name}" for name in stage_names() if not name.endswith(".evaluate")}
    only = "pipelines.backends.kubeflow.trainjob" if scale == "full" else "components.digits"
    assert set(pods) == stages - {"components.digits"} | {only}
    for pod in pods.values():
        cluster.core.create_namespaced_pod(namespace, pod, dry_run="All")


def test_a_pod_that_may_be_root_is_refused(
    helm: Helm, there: Helm, cluster: TestCluster, namespace: str, tmp_path: Path
) -> None:
    from kubernetes import client

    there("install", RELEASE, CHART)
    compiled = Compiled.of("linear", "digits", options(rendered(helm)), tmp_path / "linear.yaml")
    _, pod = next(compiled.pods("moco-transfer"))
    del pod["spec"]["containers"][0]["securityContext"]["runAsNonRoot"]

    with pytest.raises(client.ApiException, match="runAsNonRoot"):
        cluster.core.create_namespaced_pod(namespace, pod, dry_run="All")


def test_a_pod_with_gpus_is_placed_where_there_are_as_many(
    helm: Helm, there: Helm, cluster: TestCluster, namespace: str, tmp_path: Path
) -> None:
    resource = f"moco-test.example/gpu-{secrets.token_hex(4)}"  # nobody else counts on it
    claim = "datasets.imagenet.create=true,datasets.imagenet.size=1Gi"
    values = ("--set", f"gpu.resource={resource}", "--set", claim)
    there("install", RELEASE, CHART, *values)
    given = options(rendered(helm, *values))
    compiled = Compiled.of("pretrain", "full", given, tmp_path / "pretrain.yaml")
    small = {"cpus_pretrain": "100m", "memory_pretrain": "64Mi"}
    _, pod = next(
        (module, pod)
        for module, pod in compiled.pods("moco-transfer", **small)
        if module == "components.pretrain"
    )
    assert pod["spec"]["containers"][0]["resources"]["limits"][resource] == "8"
    (node, *_) = cluster.core.list_node().items
    name = cluster.core.create_namespaced_pod(namespace, pod).metadata.name

    def scheduled() -> Any:
        status = cluster.core.read_namespaced_pod_status(name, namespace).status
        return next((c for c in status.conditions or () if c.type == "PodScheduled"), None)

    refused = wait_for("the scheduler's word", scheduled)
    assert refused.status == "False"
    assert f"Insufficient {resource}" in refused.message
    try:
        _set_capacity(cluster, node.metadata.name, resource, "8")
        wait_for("the pod to be placed", lambda: scheduled().status == "True")
    finally:
        cluster.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        _set_capacity(cluster, node.metadata.name, resource, None)


def _set_capacity(cluster: TestCluster, node: str, resource: str, count: str | None) -> None:
    """Say how many of a resource a node has; nothing at all where `count` is None."""
    cluster.core.patch_node_status(node, {"status": {"capacity": {resource: count}}})
    if count is None:
        cluster.core.patch_node_status(node, {"status": {"allocatable": {resource: None}}})
