"""Every command of a compiled pipeline, executed as the launcher executes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ExitCode
from components.core.manifest import read_manifest
from components.core.metrics import read_metrics
from components.core.stage import Mount, Stage
from components.core.store import open_store
from components.digits import STAGE as DIGITS
from components.pretrain import STAGE as PRETRAIN
from components.pretrain import PretrainConfig
from components.rendering.config import DigitsConfig, PicturesConfig
from pipelines.backends.kubeflow.compile import compile_plan
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.plan import Existing, Mounted, Plan
from pipelines.recipes import Options, build_plan, load_recipe
from pipelines.runs.history import read_history
from tests.pipelines.conftest import toy_server
from tests.pipelines.launcher import Launcher, TaskFailed, restarted
from tests.servers.minio import MinioServer

pytestmark = pytest.mark.usefixtures("world")

CLUSTER = ClusterOptions(images={"torch": "registry.example/torch@sha256:1234"})
SECRETS = {"mlpipeline-minio-artifact": {"accesskey": "a-key", "secretkey": "a-secret"}}
CHECKPOINT = Existing("s3://models/moco_v1.pth.tar", "Model")


def launch(
    tmp_path: Path, plan: Plan, cluster: ClusterOptions = CLUSTER, **options: Any
) -> Launcher:
    """Compile a plan; return a run of it that has not begun."""
    compiled = tmp_path / "compiled.yaml"
    compile_plan(plan, compiled, cluster)
    options = {
        "root": str(tmp_path / "bucket" / "v2" / "artifacts"),
        "work": tmp_path / "pods",
        "secrets": SECRETS,
        "environment": {"OMP_NUM_THREADS": "1"},
        **options,
    }
    return Launcher(compiled, **options)


def test_a_recipes_compiled_commands_run_to_the_report(tmp_path: Path) -> None:
    plan = build_plan(load_recipe("toys"), Options(scale="digits"))
    launcher = launch(tmp_path, plan, server=toy_server())

    launcher.run()

    report = Path(launcher.pod("report").output_uri("report"))
    assert read_manifest(report).inputs.keys() == {
        "metrics.toys__random__short__0",
        "metrics.toys__moco_in1m__short__0",
    }
    html = Path(launcher.pod("report").output_uri("html"))
    assert html.read_bytes() == (report / "index.html").read_bytes()


def test_the_figures_reach_the_platform_as_metadata(tmp_path: Path, toy: Stage[Any]) -> None:
    plan = Plan("one", "digits")
    plan.add(toy, "first", toy.config(value=2.5))
    launcher = launch(tmp_path, plan)

    pod = launcher.run_task("first")

    assert launcher.metadata == {pod.output_uri("metrics"): {"value": 2.5}}


def test_a_step_reads_back_what_the_plan_says(tmp_path: Path, toy: Stage[Any]) -> None:
    plan = Plan("bindings")
    config = toy.config(value=1.5)
    first = plan.add(toy, "first", config, model=CHECKPOINT, data=Mounted("imagenet_2012"))
    plan.add(toy, "second", config, others={"a": first.output("metrics")})
    claim, disk = {"pvc_imagenet_2012": "fast-disk"}, tmp_path / "disk"
    launcher = launch(tmp_path, plan, parameters=claim, volumes={"fast-disk": disk})

    pod = launcher.pod("first")
    invocation = toy.parse(pod.argv[3:])

    assert pod.argv[:3] == ["python", "-m", "components.toy"]
    assert pod.image == "registry.example/torch@sha256:1234"
    assert invocation.config == config
    assert invocation.inputs == {
        "model": str(pod.folder / "s3/models/moco_v1.pth.tar"),
        "data": Mount(str(disk)),
    }
    assert invocation.state == pod.output_uri("model") + ".state"
    assert json.loads(invocation.executor_input or "") == pod.executor_input
    assert pod.executor_input["inputs"]["parameterValues"]["image"] == pod.image
    assert pod.environment["AWS_SECRET_ACCESS_KEY"] == "a-secret"
    second = launcher.pod("second")
    [fan_in] = toy.parse(second.argv[3:]).inputs["others"].items()  # type: ignore[union-attr]
    assert fan_in == ("a", f"{second.folder}/folder{pod.output_uri('metrics')}")


def test_nothing_of_a_command_is_left_unreplaced(tmp_path: Path) -> None:
    launcher = launch(
        tmp_path,
        build_plan(load_recipe("toys"), Options(scale="full")),
        volumes={"pictures": tmp_path},
    )

    for task in launcher.steps():
        assert not [word for word in launcher.pod(task).argv[3:] if word.startswith("{{")]


def test_a_foreign_file_arrives_as_a_file(tmp_path: Path, toy: Stage[Any]) -> None:
    checkpoint = tmp_path / "elsewhere" / "moco_v1.pth.tar"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    plan = Plan("foreign", "digits")
    plan.add(toy, "first", toy.config(), model=CHECKPOINT)
    launcher = launch(tmp_path, plan, parameters={"uri_first_model": str(checkpoint)})

    pod = launcher.run_task("first")

    [lineage] = read_manifest(Path(pod.output_uri("model"))).inputs.values()
    assert (lineage.origin, lineage.name) == ("file", "moco_v1.pth.tar")


def test_an_artifact_of_an_earlier_run_is_imported(tmp_path: Path, toy: Stage[Any]) -> None:
    plan = Plan("earlier", "digits")
    plan.add(toy, "first", toy.config(value=3.0))
    made = launch(tmp_path, plan).run_task("first").output_uri("metrics")
    again = Plan("again", "digits")
    existing = Existing("minio://mlpipeline/v2/artifacts/metrics", "Metrics")
    again.add(toy, "second", toy.config(), others={"a": existing})
    launcher = launch(tmp_path, again, parameters={"uri_second_others_a": made})

    pod = launcher.run_task("second")

    assert launcher.imported() == {"importer": made}
    assert read_metrics(Path(pod.output_uri("metrics"))).details["inputs"] == ["others.a"]


def test_a_pod_that_is_started_again_finds_its_state(tmp_path: Path, toy: Stage[Any]) -> None:
    plan = Plan("retried", "digits")
    plan.add(toy, "first", toy.config(ticks=2, wait=0, fails=1, how="killed"))
    launcher = launch(tmp_path, plan)
    with pytest.raises(TaskFailed):
        launcher.run_task("first")

    pod = restarted(launcher, "first").run_task("first")

    assert Path(pod.output_uri("model"), "manifest.json").exists()
    assert Path(pod.output_uri("model") + ".state", "attempts").read_text() == "2"


@pytest.mark.slow
def test_a_training_pod_keeps_its_checkpoints_in_the_store_beside_its_output(
    tmp_path: Path, minio_server: MinioServer, bucket_url: str
) -> None:
    plan = Plan("training", "digits")
    scenes = DigitsConfig(train_scenes=64, val_scenes=20, pictures=PicturesConfig(train=20, val=20))
    data = plan.add(DIGITS, "digits", scenes).output("imagenet")
    config = PretrainConfig().miniature().derive(epochs=1, negatives=64)
    plan.add(PRETRAIN, "pretrain", config, data=data)
    keys = {"accesskey": minio_server.access_key, "secretkey": minio_server.secret_key}
    launcher = launch(
        tmp_path,
        plan,
        CLUSTER.derive(store_endpoint=minio_server.endpoint),
        root=f"{bucket_url}/v2/artifacts".replace("s3://", "minio://"),
        secrets={"mlpipeline-minio-artifact": keys},
    )

    launcher.run_task("digits")
    pod = launcher.run_task("pretrain")

    assert open_store(f"{pod.output_uri('encoder')}.state").list()
    run_url = pod.output_uri("encoder").partition("/pretrain/")[0]
    rows = read_history(open_store(run_url.replace("minio:", "s3:")), "pretrain")
    assert rows[-1]["step"] == 2
    assert {"loss", "pretext_accuracy", "lr"} <= rows[-1].keys() | rows[0].keys()
    assert "manifest.json" in {one.key for one in open_store(pod.output_uri("encoder")).list()}
    assert not (pod.folder / "minio:").exists()


def test_a_failing_command_says_why(tmp_path: Path, toy: Stage[Any]) -> None:
    plan = Plan("failing", "digits")
    plan.add(toy, "first", toy.config(fails=1))
    launcher = launch(tmp_path, plan)

    with pytest.raises(TaskFailed, match=r"7\.jpg is truncated") as failed:
        launcher.run()

    assert f"exited with {int(ExitCode.BAD_DATA)}" in str(failed.value)
