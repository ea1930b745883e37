from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ConfigError, UsageError
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.connection import cluster_options
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.sizes import nodes_at, resources_at
from pipelines.backends.kubeflow.trainjob.__main__ import read_command
from pipelines.recipes import Options, build_plan, load_recipe
from tests.pipelines.launcher import Launcher


def test_a_step_of_more_gpus_than_a_node_has_follows_a_trainjob(tmp_path: Path) -> None:
    plan = build_plan(load_recipe("pretrain"), Options(scale="full"))
    compiled = tmp_path / "pretrain.yaml"
    compile_plan(plan, compiled, ClusterOptions(gpus_per_node=4, store_ca="store-ca"))
    launcher = Launcher(
        compiled,
        root="s3://bucket/artifacts",
        work=tmp_path,
        parameters={"pvc_imagenet": "fast-disk", "store_secret": "keys", "image_torch": "moco:1"},
        volumes={"fast-disk": tmp_path},
        secrets={"keys": {"accesskey": "a", "secretkey": "b"}},
    )
    pod = launcher.pod("pretrain-moco-in1m")
    assert pod.argv[:3] == ["python", "-m", "pipelines.backends.kubeflow.trainjob"]
    given = read_command(pod.argv[3:])
    assert (given.config.nodes, given.config.pod.gpus) == (2, "4")
    assert given.config.pod.image == "moco:1"
    assert given.config.pod.claims == {"/data/imagenet": "fast-disk"}
    assert given.config.pod.secrets["AWS_ACCESS_KEY_ID"].secret == "keys"
    assert given.config.pod.config_maps == {"/etc/moco-transfer/certificates": "store-ca"}
    assert given.invocation.outputs == {
        port: pod.output_uri(port) for port in ("encoder", "metrics")
    }
    assert given.invocation.state == f"{pod.output_uri('encoder')}.state"
    assert given.executor_input is not None


def test_more_gpus_bring_their_share_of_cores_and_memory(tmp_path: Path) -> None:
    plan = build_plan(load_recipe("pretrain"), Options(scale="full"))
    stage = plan.step("pretrain_moco_in1m").stage
    declared = resources_at("full", stage, ClusterOptions())
    twice = resources_at("full", stage, ClusterOptions(gpus={"pretrain": declared.gpus * 2}))

    assert (twice.gpus, twice.cpus) == (declared.gpus * 2, declared.cpus * 2)
    assert resources_at("digits", stage, ClusterOptions(gpus={"pretrain": 16})).gpus == 0
    with pytest.raises(UsageError, match="uses no GPU"):
        compile_plan(plan, tmp_path / "p.yaml", ClusterOptions(gpus={"report": 8}))


def test_nodes_are_as_few_as_share_the_gpus_evenly_unless_they_are_said() -> None:
    plan = build_plan(load_recipe("pretrain"), Options(scale="full"))
    stage = plan.step("pretrain_moco_in1m").stage

    def nodes(scale: str = "full", **options: Any) -> int:
        return nodes_at(scale, stage, ClusterOptions(**options))

    assert nodes() == 1
    assert nodes(gpus={"pretrain": 12}, gpus_per_node=5) == 3
    assert nodes(gpus={"pretrain": 7}, gpus_per_node=5) == 7
    assert nodes(nodes={"pretrain": 2}) == 2
    assert nodes("digits", gpus={"pretrain": 16}) == 1
    assert nodes("digits", nodes={"pretrain": 2}) == 2
    with pytest.raises(UsageError, match=r"nodes\.pretrain=3: its 8 GPUs cannot be shared evenly"):
        nodes(nodes={"pretrain": 3})
    with pytest.raises(UsageError, match="its 8 GPUs need 4 nodes of 2, as gpus_per_node says"):
        nodes(nodes={"pretrain": 2}, gpus_per_node=2)


def test_the_miniature_takes_several_nodes_without_gpus(tmp_path: Path) -> None:
    plan = build_plan(load_recipe("pretrain"), Options(scale="digits"))
    compiled = tmp_path / "pretrain.yaml"
    compile_plan(plan, compiled, ClusterOptions(nodes={"pretrain": 2}))
    launcher = Launcher(
        compiled,
        root="s3://bucket/artifacts",
        work=tmp_path,
        secrets={"mlpipeline-minio-artifact": {"accesskey": "a", "secretkey": "b"}},
    )
    given = read_command(launcher.pod("pretrain-moco-in1m").argv[3:])
    assert (given.config.nodes, given.config.processes, given.config.pod.gpus) == (2, 1, "0")
    assert given.config.pod.sure_cpus == "250m"
    with pytest.raises(UsageError, match=r"nodes\.report=2: this stage is one process"):
        compile_plan(plan, compiled, ClusterOptions(nodes={"report": 2}))


def test_a_stage_that_is_none_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no stage 'pretrian'; did you mean 'pretrain'\?"):
        cluster_options(["nodes.pretrian=2"], ask=False)
    dotted = cluster_options(["gpus.classification.linear=4"], ask=False)
    assert dotted.gpus == {"classification.linear": 4}
