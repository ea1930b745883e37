"""The TrainJob of a step of several nodes, against the definition of Kubeflow Trainer itself."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import ConfigError, MocoError, UsageError
from components.core.metrics import tell_platform
from components.core.stage import Mount, Resources
from components.pretrain import STAGE, PretrainConfig
from pipelines.backends.kubeflow.options import ClusterOptions, Toleration
from pipelines.backends.kubeflow.pod import Pod, shared_size, store_secrets
from pipelines.backends.kubeflow.trainjob import MODULE, TrainJobConfig, follower_argv
from pipelines.backends.kubeflow.trainjob.__main__ import read_command, run
from pipelines.backends.kubeflow.trainjob.manifest import LONGEST_NAME, job_name, train_job
from pipelines.backends.kubeflow.trainjob.outputs import figures_of, missing_outputs
from tests.servers.cluster import TestCluster, cluster, namespace
from tests.servers.go import NoServerError
from tests.servers.trainer import TRAINER, module_folder, trainer

__all__ = ["cluster", "namespace", "trainer"]

OUTPUTS = {"encoder": "s3://bucket/a/encoder", "metrics": "s3://bucket/a/metrics"}
STAGE_ARGV = STAGE.argv(
    PretrainConfig(),
    {"data": Mount("/data/imagenet")},
    OUTPUTS,
    state="s3://bucket/a/encoder.state",
)
OPTIONS = ClusterOptions(
    gpus_per_node=8,
    node_selector={"pool": "gpus"},
    tolerations=(Toleration(key="nvidia.com/gpu", effect="NoSchedule"), Toleration()),
    labels={"kueue.x-k8s.io/queue-name": "gpus"},
)


def shared(wanted: Resources, nodes: int, **asked: Any) -> TrainJobConfig:
    """Share what a stage wants out over nodes."""
    pod = Pod(image="i", **shared_size(wanted, nodes, OPTIONS))
    pod = pod.model_copy(
        update={
            "secrets": store_secrets(OPTIONS, "store"),
            "node_selector": OPTIONS.node_selector,
            "tolerations": OPTIONS.tolerations,
            **asked,
        }
    )
    return TrainJobConfig.of(pod, nodes, OPTIONS)


CONFIG = shared(
    Resources(gpus=16, cpus=128, memory=512, shared_memory=100),
    nodes=2,
    image="registry.example/moco/torch@sha256:0000",
    environment={"HOME": "/tmp", "MOCO_S3_ENDPOINT": "http://store:9000"},
    claims={"/data/imagenet": "imagenet"},
    config_maps={"/etc/certificates": "store-ca"},
)
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "step-1", "uid": "0-0-0"}


def manifest(config: TrainJobConfig = CONFIG, name: str = "pretrain-0123456789") -> dict[str, Any]:
    command = ["python", *STAGE_ARGV]
    labels = {"moco-transfer/stage": "pretrain"}
    return train_job(config, command, name=name, labels=labels, owner=OWNER)


@pytest.fixture(scope="session")
def definition() -> dict[str, Any]:
    """Give the schema of TrainJob from its public module, or skip with the reason."""
    try:
        folder = module_folder(TRAINER.module)
    except NoServerError as reason:
        pytest.skip(str(reason))
    path = folder / "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml"
    (version,) = yaml.safe_load(path.read_text("utf-8"))["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def faults(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Compare a value with a schema as the API server does under `Strict`."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{path}: {value!r} is neither a number nor a string"
        elif isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        return
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if not isinstance(value, types[schema["type"]]):
        yield f"{path}: {value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        yield from (f"{path}.{key} is missing" for key in {*schema.get("required", ())} - {*value})
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if inner is not None:
                yield from faults(item, inner, f"{path}.{key}")
            elif path != ".metadata":  # which the API server knows itself
                yield f"{path}.{key}: no such field"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from faults(item, schema["items"], f"{path}[{number}]")
        keys = (
            [
                tuple(one.get(k) for k in schema.get("x-kubernetes-list-map-keys", ()))
                for one in value
            ]
            if schema.get("x-kubernetes-list-type") == "map"
            else []
        )
        if len(set(keys)) < len(keys):
            yield f"{path}: two items have one key"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"


def test_the_manifest_fits_the_definition(definition: dict[str, Any]) -> None:
    assert list(faults(manifest(), definition)) == []
    pod = Pod(image="i", cpus="1", memory="1Gi")
    bare = TrainJobConfig(nodes=2, processes=1, runtime="r", pod=pod)
    assert list(faults(manifest(bare), definition)) == []


def test_the_definition_finds_what_does_not_fit(definition: dict[str, Any]) -> None:
    wrong = manifest()
    wrong["spec"]["trainer"]["numNodes"] = "two"
    wrong["spec"]["trainer"]["securityContext"] = {}
    wrong["spec"]["trainer"]["env"].append({"name": "HOME", "value": "/"})
    del wrong["spec"]["runtimeRef"]["name"]
    found = sorted(faults(wrong, definition))
    assert [one.partition(":")[0] for one in found] == [
        ".spec.runtimeRef.name is missing",
        ".spec.trainer.env",
        ".spec.trainer.numNodes",
        ".spec.trainer.securityContext",
    ]


def test_a_cluster_with_kubeflow_trainer_takes_the_manifest(
    trainer: TestCluster, namespace: str
) -> None:
    from kubernetes import client

    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": CONFIG.runtime},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {"numProcPerNode": "auto"}},
            "template": {
                "spec": {
                    "replicatedJobs": [
                        {
                            "name": "node",
                            "template": {
                                "metadata": {
                                    "labels": {
                                        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
                                    }
                                },
                                "spec": {
                                    "template": {
                                        "spec": {"containers": [{"name": "node", "image": "i"}]}
                                    }
                                },
                            },
                        }
                    ]
                }
            },
        },
    }
    api = client.CustomObjectsApi(trainer.api)
    place = ("trainer.kubeflow.org", "v1alpha1", namespace)
    api.create_namespaced_custom_object(*place, "trainingruntimes", runtime)

    def offer(body: dict[str, Any]) -> Any:
        return api.create_namespaced_custom_object(
            *place, "trainjobs", body, dry_run="All", field_validation="Strict"
        )

    taken = offer(manifest())
    assert taken["spec"]["trainer"] == manifest()["spec"]["trainer"]
    unknown = manifest()
    unknown["spec"]["trainer"]["securityContext"] = {}
    with pytest.raises(client.ApiException, match="unknown field"):
        offer(unknown)


def test_what_a_stage_wants_is_shared_out_evenly() -> None:
    pod = CONFIG.pod
    assert (CONFIG.nodes, CONFIG.processes, pod.gpus, pod.cpus) == (2, 8, "8", "64")
    assert (pod.memory, pod.shared_memory) == ("306Gi", 50)  # 256 and /dev/shm
    uneven = shared(Resources(gpus=12, cpus=10, memory=10), nodes=3)
    assert (uneven.nodes, uneven.processes) == (3, 4)
    assert (uneven.pod.cpus, uneven.pod.memory) == ("4", "4Gi")


def test_pods_without_gpus_have_one_process_and_may_share_cores() -> None:
    config = shared(Resources(gpus=0, cpus=1, memory=3), nodes=2, sure_cpus="250m")
    part = manifest(config)["spec"]["trainer"]
    assert part["numProcPerNode"] == 1
    assert part["resourcesPerNode"] == {
        "limits": {"cpu": "1", "memory": "2Gi"},
        "requests": {"cpu": "250m", "memory": "2Gi"},
    }


def test_every_pod_gets_requests_limits_and_its_own_number_of_processes() -> None:
    trainer_part = manifest()["spec"]["trainer"]
    sizes = {"cpu": "64", "memory": "306Gi", "nvidia.com/gpu": "8"}
    assert trainer_part["resourcesPerNode"] == {"limits": sizes, "requests": sizes}
    assert trainer_part["numProcPerNode"] == 8
    assert trainer_part["command"][:3] == ["python", "-m", "components.pretrain"]


def test_credentials_go_by_reference_only() -> None:
    env = {one["name"]: one for one in manifest()["spec"]["trainer"]["env"]}
    reference = {"secretKeyRef": {"name": "store", "key": "secretkey"}}
    assert env["AWS_SECRET_ACCESS_KEY"] == {
        "name": "AWS_SECRET_ACCESS_KEY",
        "valueFrom": reference,
    }
    assert env["MOCO_IMAGE"]["value"] == CONFIG.pod.image


def test_the_name_is_short_and_that_of_the_same_outputs_only() -> None:
    step = "classification_imagenet__Supervised_on_a_very_long_name_of_a_row_0"
    name = job_name(step, OUTPUTS)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])", name)
    assert len(name) <= LONGEST_NAME
    assert name == job_name(step, dict(reversed(OUTPUTS.items())))
    assert name != job_name(step, OUTPUTS | {"metrics": "s3://bucket/b/metrics"})
    assert job_name("8_gpus", OUTPUTS).startswith("step-8-gpus-")


def test_the_command_line_is_read_back() -> None:
    argv = follower_argv(CONFIG, STAGE_ARGV, executor_input='{"outputs": {}}')
    assert argv[:2] == ["-m", MODULE]
    read = read_command(argv[2:])
    assert read.config == CONFIG
    assert read.command == ["python", *STAGE_ARGV]
    assert read.invocation.outputs == OUTPUTS
    assert read.executor_input == '{"outputs": {}}'


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--config", "{}"], UsageError, "the stage's command line is missing"),
        (["--", "python"], UsageError, "--config is missing"),
        (["--conf", "{}", "--", "python"], UsageError, "--conf: expected --config JSON"),
        (["--config", "--", "python"], UsageError, "--config: expected --config JSON"),
        (["--config", "{}", "--", "true"], UsageError, "expected python -m components.NAME"),
        (
            ["--config", "{}", "--", "python", "-m", "components.pretain"],
            UsageError,
            "did you mean 'pretrain'",
        ),
        (
            ["--config", '{"nodes": 1}', "--", "python", *STAGE_ARGV],
            ConfigError,
            "(?s)nodes: .*greater than or equal to 2.*pod",
        ),
        (
            ["--config", CONFIG.to_json(), "--", "python", *STAGE_ARGV[:-1]],
            UsageError,
            "--state needs a value",
        ),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], error: type[MocoError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_command(arguments)


def test_neither_torch_nor_the_kubernetes_client_is_imported_to_build_the_command() -> None:
    code = (
        f"import sys, {MODULE}; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'kfp', 'kubernetes')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def made(folder: Path) -> dict[str, str]:
    """Make a stage's outputs, as small as can be, and return their URLs."""
    from components.core.manifest import Manifest, hash_folder, write_manifest
    from components.core.metrics import Metrics, write_metrics
    from components.core.version import code_of

    for name, port in STAGE.outputs.items():
        output = folder / name
        output.mkdir(parents=True)
        if port.kind == "Metrics":
            write_metrics(output, Metrics(values={"knn_accuracy": 12.5}))
        else:
            (output / "encoder.safetensors").write_bytes(b"weights")
        write_manifest(
            output,
            Manifest(
                stage=STAGE.name,
                port=name,
                kind=port.kind,
                config={},
                code=code_of(STAGE, STAGE.config()),
                image="",
                files=hash_folder(output),
            ),
        )
    return {name: str(folder / name) for name in STAGE.outputs}


def test_outputs_that_are_not_whole_are_named(tmp_path: Path) -> None:
    outputs = made(tmp_path)
    assert missing_outputs(STAGE, outputs) == []
    (tmp_path / "encoder/encoder.safetensors").write_bytes(b"half")
    (tmp_path / "metrics/manifest.json").unlink()
    assert missing_outputs(STAGE, outputs) == [
        f"{tmp_path}/encoder/encoder.safetensors has 4 bytes, not 7",
        f"{tmp_path}/metrics has no manifest.json",
    ]


def test_the_platform_is_told_the_figures(tmp_path: Path) -> None:
    outputs = made(tmp_path)
    file = tmp_path / "told" / "output.json"
    artifact = {"name": "metrics", "uri": "minio://b/metrics", "type": {}}
    told = {"outputFile": str(file), "artifacts": {"metrics": {"artifacts": [artifact]}}}
    tell_platform(json.dumps({"outputs": told}), figures_of(STAGE, outputs))
    assert json.loads(file.read_text())["artifacts"]["metrics"]["artifacts"] == [
        {"name": "metrics", "uri": "minio://b/metrics", "metadata": {"knn_accuracy": 12.5}}
    ]


def test_what_an_earlier_pod_has_finished_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)  # nobody is asked
    outputs = made(tmp_path)
    argv = STAGE.argv(PretrainConfig(), {"data": Mount("/data")}, outputs)
    assert run(read_command(follower_argv(CONFIG, argv)[2:])) == 0
