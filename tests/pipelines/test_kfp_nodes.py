from pathlib import Path

import pytest

from components.core.errors import UsageError
from pipelines.backends.cluster import ClusterOptions, resources_at
from pipelines.backends.kfp import compile_plan
from pipelines.cluster.trainjob.__main__ import read_command
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
    assert pod.argv[:3] == ["python", "-m", "pipelines.cluster.trainjob"]
    given = read_command(pod.argv[3:])
    assert (given.config.nodes, given.config.gpus, given.config.image) == (2, 4, "moco:1")
    assert given.config.claims == {"/data/imagenet": "fast-disk"}
    assert given.config.secrets["AWS_ACCESS_KEY_ID"].secret == "keys"
    assert given.config.config_maps == {"/etc/moco-transfer/certificates": "store-ca"}
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
