"""The compiled pipeline as kfp and a reader see it."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components.core.config import read_config
from components.core.errors import UsageError
from components.core.stage import Resources, Stage
from components.report import STAGE as REPORT
from components.report import ReportConfig
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.component import component_of
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.pod import step_pod
from pipelines.backends.kubeflow.weights import Weights
from pipelines.plan import Existing, Mounted, Plan

CLUSTER = ClusterOptions(images={"torch": "registry.example/torch@sha256:1234"})
CHECKPOINT = Existing("s3://models/moco_v1.pth.tar", "Model")
TEXT = 'quotes " and {{braces}}, é'

Document = dict[str, Any]
Compile = Callable[..., tuple[Document, Document]]


@pytest.fixture
def trainer(toy: Stage[Any]) -> Stage[Any]:
    """The toy with the wishes of a training stage."""
    wishes = Resources(gpus=8, cpus=64, memory=256, shared_memory=64)
    return dataclasses.replace(toy, resources=wishes)


def sample(trainer: Stage[Any], scale: str = "full") -> Plan:
    """Every kind of input: a foreign file, a mounted data set, an output, many outputs."""
    plan = Plan("sample_recipe", scale)
    config = trainer.config(value=1.5)
    data = {"data": Mounted("imagenet_2012")} if scale == "full" else {}
    first = plan.add(trainer, "first", config, model=CHECKPOINT, **data)
    second = plan.add(trainer, "second", config, model=first.output("model"))
    many = {"a": first.output("metrics"), "b": second.output("metrics")}
    plan.add(trainer, "third", config, others=many)
    plan.add(
        REPORT, "report", ReportConfig(title=TEXT), metrics={"t__r__c__0": first.output("metrics")}
    )
    return plan


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Compile a plan; return both documents of the file."""

    def compiled(plan: Plan, cluster: ClusterOptions = CLUSTER) -> tuple[Document, Document]:
        path = tmp_path / "compiled.yaml"
        compile_plan(plan, path, cluster)
        spec, platform = yaml.safe_load_all(path.read_text("utf-8"))
        return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    return compiled


def component(spec: Document, task: str) -> Document:
    found: Document = spec["components"][spec["root"]["dag"]["tasks"][task]["componentRef"]["name"]]
    return found


def executor(spec: Document, task: str) -> str:
    return str(component(spec, task)["executorLabel"])


def container(spec: Document, task: str) -> Document:
    found: Document = spec["deploymentSpec"]["executors"][executor(spec, task)]["container"]
    return found


def parameters(spec: Document) -> dict[str, str]:
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    return {name: one["defaultValue"] for name, one in definitions.items()}


def test_the_compiled_file_fits_the_schema_of_pipelines_and_of_the_kubernetes_platform(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, platform = compiled(sample(trainer))

    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    for config in platform.values():
        json_format.ParseDict(config, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_kfp_loads_the_compiled_file(tmp_path: Path, trainer: Stage[Any]) -> None:
    compile_plan(sample(trainer), tmp_path / "p.yaml", CLUSTER)

    loaded = kfp_components.load_component_from_file(str(tmp_path / "p.yaml"))

    assert loaded.name == "sample-recipe"
    assert "uri_first_model" in loaded.component_spec.inputs


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path, trainer: Stage[Any]) -> None:
    for name in ("a.yaml", "b.yaml"):
        compile_plan(sample(trainer), tmp_path / name, CLUSTER)

    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_the_command_is_the_stages_own(compiled: Compile, trainer: Stage[Any]) -> None:
    spec, _ = compiled(sample(trainer))

    first = container(spec, "first")
    assert first["command"] == ["python", "-m", "components.toy"]
    assert first["args"] == [
        *("--config", trainer.config(value=1.5).to_json()),
        *("--changes", "{{$.inputs.parameters['changes']}}"),
        *("--input.model", "{{$.inputs.artifacts['model'].path}}"),
        *("--mount.data", "/data/imagenet_2012"),
        *("--output.model", "{{$.outputs.artifacts['model'].path}}"),
        *("--output.metrics", "{{$.outputs.artifacts['metrics'].path}}"),
        *("--state", "{{$.outputs.artifacts['model'].uri}}.state"),
        *("--executor-input", "{{$}}"),
    ]


def test_every_key_of_a_many_port_is_an_input_of_its_own(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, _ = compiled(sample(trainer))

    arguments = container(spec, "third")["args"]
    assert arguments[4:8] == [
        *("--input.others.a", "{{$.inputs.artifacts['others_a'].path}}"),
        *("--input.others.b", "{{$.inputs.artifacts['others_b'].path}}"),
    ]
    inputs = spec["root"]["dag"]["tasks"]["third"]["inputs"]["artifacts"]
    assert inputs["others_b"]["taskOutputArtifact"] == {
        "producerTask": "second",
        "outputArtifactKey": "metrics",
    }


def test_only_a_resumable_stage_gets_state_and_credentials(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, platform = compiled(sample(trainer))

    assert "--state" not in container(spec, "report")["args"]
    assert "secretAsEnv" not in platform[executor(spec, "report")]
    [secret] = platform[executor(spec, "first")]["secretAsEnv"]
    assert secret["secretNameParameter"] == {"componentInputParameter": "store_secret"}
    assert secret["keyToEnv"] == [
        {"secretKey": "accesskey", "envVar": "AWS_ACCESS_KEY_ID"},
        {"secretKey": "secretkey", "envVar": "AWS_SECRET_ACCESS_KEY"},
    ]


def test_the_config_is_that_of_the_stages_first_step_with_changes(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    plan = sample(trainer)
    plan.add(trainer, "fourth", trainer.config(value=2.5), model=CHECKPOINT)
    spec, _ = compiled(plan)

    for step in plan:
        option, base, *_ = container(spec, step.name)["args"]
        given = spec["root"]["dag"]["tasks"][step.name]["inputs"]["parameters"]["changes"]
        changes = given["runtimeValue"]["constant"]
        assert option == "--config"
        assert read_config(step.stage.config, base, changes) == step.config
        assert changes == ('{"value":2.5}' if step.name == "fourth" else "{}")


def test_artifacts_are_typed_so_that_the_ui_shows_them(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, _ = compiled(sample(trainer))

    types = {
        (component, port): one["artifactType"]["schemaTitle"]
        for component, document in spec["components"].items()
        for port, one in document.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert types["comp-toy", "model"] == "system.Model"
    assert types["comp-toy", "metrics"] == "system.Metrics"
    assert types["comp-report", "report"] == "system.Artifact"
    assert types["comp-report", "html"] == "system.HTML"


def test_what_a_cluster_differs_in_is_a_parameter_of_the_run(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, _ = compiled(sample(trainer))

    assert parameters(spec) == {
        "accelerator_type": "nvidia.com/gpu",
        "cpus_report": "1",
        "cpus_toy": "64",
        "gpus_toy": "8",
        "image_torch": "registry.example/torch@sha256:1234",
        "memory_report": "2Gi",
        "memory_toy": "320Gi",  # what lies in shared memory counts
        "pvc_imagenet_2012": "imagenet-2012",
        "store_secret": "mlpipeline-minio-artifact",
        "uri_first_model": "s3://models/moco_v1.pth.tar",
    }
    described = spec["root"]["inputDefinitions"]["parameters"]
    assert all(one["description"] for one in described.values())


def test_the_miniature_needs_neither_gpu_nor_volume(compiled: Compile, trainer: Stage[Any]) -> None:
    spec, platform = compiled(sample(trainer, "digits"))

    assert parameters(spec)["cpus_toy"] == "1"
    assert parameters(spec)["memory_toy"] == "4Gi"
    assert not [name for name in parameters(spec) if name.startswith(("gpus", "accel", "pvc"))]
    assert "accelerator" not in container(spec, "first")["resources"]
    assert not any("pvcMount" in config for config in platform.values())


def test_the_miniatures_libraries_take_the_cores_of_the_pod_not_of_the_node(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, _ = compiled(sample(trainer, "digits"))
    for step in ("first", "report"):
        assert {"name": "OMP_NUM_THREADS", "value": "1"} in container(spec, step)["env"]


def test_a_pod_passes_restricted_and_has_somewhere_to_write(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, platform = compiled(sample(trainer))

    for config in platform.values():
        assert config["securityContext"] == {
            "runAsUser": "1000",
            "runAsGroup": "1000",
            "runAsNonRoot": True,
        }
        assert {"volumeName": "scratch", "mountPath": "/tmp"} in config["emptyDirMounts"]
    assert platform[executor(spec, "first")]["emptyDirMounts"][1] == {
        "volumeName": "shared-memory",
        "mountPath": "/dev/shm",
        "medium": "Memory",
        "sizeLimit": "64Gi",
    }
    assert {"name": "HOME", "value": "/tmp"} in container(spec, "report")["env"]


def test_lost_pods_are_retried_for_longer_than_a_training_takes(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    spec, _ = compiled(sample(trainer))

    policy = spec["root"]["dag"]["tasks"]["first"]["retryPolicy"]
    assert policy["maxRetryCount"] == 3
    assert policy["backoffDuration"] == "30s"
    assert int(policy["backoffMaxDuration"].rstrip("s")) > 53 * 3600  # Sec. 4: the paper's longest


def test_caching_can_be_switched_off(compiled: Compile, trainer: Stage[Any]) -> None:
    on, _ = compiled(sample(trainer))
    off, _ = compiled(sample(trainer), CLUSTER.derive(cache=False))

    assert on["root"]["dag"]["tasks"]["first"]["cachingOptions"] == {"enableCache": True}
    assert not off["root"]["dag"]["tasks"]["first"]["cachingOptions"]


def test_a_task_carries_the_steps_name_and_its_pods_the_stages(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    plan = sample(trainer)
    spec, platform = compiled(plan, CLUSTER.derive(labels={"kueue.x-k8s.io/queue-name": "gpus"}))

    tasks = spec["root"]["dag"]["tasks"]
    names = {task["taskInfo"]["name"] for task in tasks.values()}
    # The server finds what an importer brought only under the name of its task.
    assert names == {*plan.steps, "importer"}
    assert "importer" in tasks
    assert platform[executor(spec, "first")]["podMetadata"]["labels"] == {
        "kueue.x-k8s.io/queue-name": "gpus",
        "moco-transfer/recipe": "sample_recipe",
        "moco-transfer/stage": "toy",
    }


def test_steps_that_differ_in_their_inputs_only_share_a_component(
    compiled: Compile, trainer: Stage[Any]
) -> None:
    plan = sample(trainer)
    plan.add(trainer, "fourth", trainer.config(value=2), model=plan.steps["first"].output("model"))
    spec, platform = compiled(plan)

    tasks = spec["root"]["dag"]["tasks"]
    components = {name: task["componentRef"]["name"] for name, task in tasks.items()}
    assert components["second"] == components["fourth"]
    assert len({components[name] for name in ("first", "second", "third", "report")}) == 4
    assert spec["components"].keys() == set(components.values())
    executors = spec["deploymentSpec"]["executors"].keys()
    assert executors == {executor(spec, name) for name in tasks}
    assert platform.keys() == executors - {"exec-importer"}


def test_secrets_of_this_machine_are_not_in_the_compiled_file(
    compiled: Compile, trainer: Stage[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MINIO_ROOT_PASSWORD"):
        monkeypatch.setenv(name, "canary-8c1f")

    assert "canary" not in str(compiled(sample(trainer)))


def test_a_workflow_that_the_cluster_would_not_take_is_told_with_the_ways_out(
    tmp_path: Path, toy: Stage[Any]
) -> None:
    plan = Plan("large")
    sizes = {}
    for number in range(1, 31):
        plan.add(toy, f"step_{number}", toy.config(seed=number))
        if number in (10, 30):
            sizes[number] = compile_plan(plan, tmp_path / "p.yaml", CLUSTER)
    a_step = (sizes[30].size - sizes[10].size) / 20
    large, larger = (
        dataclasses.replace(
            sizes[30], steps=steps, weights=Weights(round(steps * a_step), tasks={}, shared={})
        )
        for steps in (150, 300)
    )

    assert sizes[30].fits(CLUSTER)
    assert not large.fits(CLUSTER)
    words = large.too_large(CLUSTER)
    assert "one workflow has no room for 150 steps of large" in words
    assert "about 1.1" in words
    assert "takes 1.05 MB. Ways out: fewer trials (--trials)" in words
    assert "MAX_WORKFLOW_SIZE=1500000, then --cluster workflow_size=1500000" in words
    assert large.fits(CLUSTER.derive(workflow_size=1_500_000))
    assert "MAX_WORKFLOW_SIZE" not in larger.too_large(CLUSTER)  # etcd's limit


def test_a_checkpoint_on_this_machine_is_refused(tmp_path: Path, toy: Stage[Any]) -> None:
    plan = Plan("foreign")
    plan.add(toy, "first", toy.config(), model=Existing("/home/me/moco.pth.tar", "Model"))

    with pytest.raises(UsageError, match=r"first, input model: /home/me/moco.pth.tar .* bucket"):
        compile_plan(plan, tmp_path / "p.yaml", CLUSTER)


def test_inputs_that_would_share_a_name_are_refused(toy: Stage[Any]) -> None:
    stage = dataclasses.replace(toy, inputs={"image": toy.inputs["model"]})
    plan = Plan("clash")
    step = plan.add(stage, "first", toy.config(), image=CHECKPOINT)

    with pytest.raises(ValueError, match="two of its inputs have one name: changes, image, image"):
        component_of(step, step.config, step_pod(plan, step, CLUSTER), {})


def test_compiling_without_kfp_says_what_to_install(
    tmp_path: Path, toy: Stage[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("one")
    plan.add(toy, "first", toy.config())
    monkeypatch.setitem(sys.modules, "kfp", None)

    with pytest.raises(UsageError, match=r"pip install moco-transfer\[kubeflow\]"):
        compile_plan(plan, tmp_path / "p.yaml", CLUSTER)


def test_importing_the_backend_imports_no_kfp() -> None:
    code = (
        "import sys, pipelines.backends.kubeflow.compile, pipelines.backends.kubeflow.options;"
        "assert not {'kfp', 'torch', 'kubernetes', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
