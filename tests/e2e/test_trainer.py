"""A stage on several nodes of a real cluster: Kubeflow Trainer's own controllers, real pods.

Needs what `tests.servers.cluster` and `tests.servers.trainer` read from the environment; it costs
about ten minutes on two cores.
"""

import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ClusterError, ExitCode
from components.core.manifest import MANIFEST, Manifest
from components.core.store import Store, open_store
from components.digits import STAGE as DIGITS
from components.pretrain import STAGE, PretrainConfig
from components.rendering.config import DigitsConfig, PicturesConfig
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.pod import Pod, SecretField
from pipelines.backends.kubeflow.trainjob import TrainJobConfig, follow, follower_argv
from pipelines.backends.kubeflow.trainjob.follow import JOBSET, JobFollower, TrainJob
from pipelines.backends.kubeflow.trainjob.manifest import train_job
from tests.servers.cluster import TestCluster, restricted_pod, wait_for
from tests.servers.helm import Helm, helm
from tests.servers.minio import MinioServer
from tests.servers.trainer import JOBSET as JOBSET_CONTROLLER
from tests.servers.trainer import trainer

__all__ = ["helm", "trainer"]

CHART = Path(__file__).parents[2] / "charts" / "moco-transfer"
SECRET = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
SECONDS = 600  # for a training; a pod needs half a minute of imports on a busy machine
API = ("trainer.kubeflow.org", "v1alpha1")

CONFIG = PretrainConfig().miniature()
CONFIG = CONFIG.derive(epochs=40, batch_size=16, negatives=64, sub_batch=4, log_every=20)
CONFIG = CONFIG.derive(knn={"neighbours": 5, "every": 40}, checkpoint_seconds=1)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Place:
    """A namespace with the chart, a bucket with data, and what pods must be told of both."""

    cluster: TestCluster
    namespace: str
    image: str
    store: Store
    environment: dict[str, str]

    @property
    def objects(self) -> Any:
        from kubernetes import client

        return client.CustomObjectsApi(self.cluster.api)

    def config(self, runtime: str = "moco-transfer", **changes: Any) -> TrainJobConfig:
        known: dict[str, Any] = {
            "image": self.image,
            "cpus": "200m",
            "memory": "2Gi",
            "shared_memory": 1,
            "environment": self.environment,
            "secrets": {
                variable: SecretField(secret="store", key=key) for key, variable in SECRET.items()
            },
        }
        pod = Pod(**(known | changes))
        return TrainJobConfig(nodes=2, processes=1, runtime=runtime, pod=pod)

    def outputs(self, name: str) -> dict[str, str]:
        return {port: f"{self.store.url}/{name}/{port}" for port in STAGE.outputs}

    def stage_argv(
        self, name: str, config: PretrainConfig = CONFIG, data: str = "data"
    ) -> list[str]:
        outputs = self.outputs(name)
        state = f"{outputs['encoder']}.state"
        return STAGE.argv(config, {"data": f"{self.store.url}/{data}"}, outputs, state=state)

    def pod(self, name: str, command: list[str]) -> dict[str, Any]:
        """Write a pod of the chart's account that runs a command with the store at hand."""
        env: list[dict[str, Any]] = [
            {"name": key, "value": value} for key, value in self.environment.items()
        ]
        env += [
            {
                "name": variable,
                "valueFrom": {"secretKeyRef": {"name": "store", "key": key}},
            }
            for key, variable in SECRET.items()
        ]
        pod: dict[str, Any] = restricted_pod(name, self.image, command, env=env)
        pod["metadata"]["labels"] = {"moco-transfer/stage": "pretrain", "pipeline/runid": "run-1"}
        pod["spec"] |= {"serviceAccountName": "moco-transfer", "automountServiceAccountToken": True}
        return pod

    def follower(self, name: str, argv: list[str] | None = None, **changes: Any) -> dict[str, Any]:
        """Write the pod of a pipeline's step that follows a TrainJob."""
        following = follower_argv(self.config(**changes), argv or self.stage_argv(name))
        return self.pod(f"follow-{name}", ["python", *following])

    def train_jobs(self) -> list[dict[str, Any]]:
        found = self.objects.list_namespaced_custom_object(*API, self.namespace, "trainjobs")
        items: list[dict[str, Any]] = found["items"]
        return items

    def nodes(self) -> list[Any]:
        """List the pods of TrainJobs."""
        found = self.cluster.core.list_namespaced_pod(self.namespace, label_selector=JOBSET)
        return list(found.items)

    def start(self, pod: dict[str, Any]) -> str:
        self.cluster.core.create_namespaced_pod(self.namespace, pod)
        name: str = pod["metadata"]["name"]
        return name

    def ended(self, name: str) -> tuple[int, str]:
        """Wait for a pod of one container; return its exit code and log."""

        def ending() -> Any:
            status = self.cluster.core.read_namespaced_pod(name, self.namespace).status
            return status.phase in ("Succeeded", "Failed") and status

        status = wait_for(f"pod {name} to end", ending, SECONDS)
        code: int = status.container_statuses[0].state.terminated.exit_code
        return code, self.log(name)

    def log(self, name: str) -> str:
        return str(self.cluster.core.read_namespaced_pod_log(name, self.namespace))

    def await_nodes(self, count: int = 2) -> list[Any]:
        """Wait until the pods of a TrainJob run."""
        return list(
            wait_for(
                "pods of a TrainJob",
                lambda: (
                    (found := self.nodes())
                    and len(found) == count
                    and all(pod.status.phase == "Running" for pod in found)
                    and found
                ),
                SECONDS,
            )
        )

    def await_checkpoint(self, name: str) -> None:
        state = f"{name}/encoder.state/checkpoints"
        wait_for(
            "a checkpoint",
            lambda: any(entry.key.endswith(MANIFEST) for entry in self.store.list(state)),
            SECONDS,
        )

    def manifests(self, name: str) -> dict[str, Manifest]:
        return {
            port: Manifest.model_validate_json(self.store.read(f"{name}/{port}/{MANIFEST}"))
            for port in STAGE.outputs
        }


@pytest.fixture(scope="module")
def place(
    trainer: TestCluster,
    helm: Helm,
    node_minio: MinioServer,
    pod_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """Install the chart in a namespace that enforces *restricted*, and put data into a bucket."""
    name = f"moco-test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    trainer.core.create_namespace({"metadata": {"name": name, "labels": labels}})
    patch = pytest.MonkeyPatch()
    try:
        keys = dict(zip(SECRET, (node_minio.access_key, node_minio.secret_key), strict=True))
        trainer.core.create_namespaced_secret(
            name, {"metadata": {"name": "store"}, "stringData": keys}
        )
        installed = Helm(helm.binary, trainer.kubeconfig, name)
        values = {
            "trainer.enabled": "true",
            "trainer.maxRestarts": "1",
            "trainer.sharedMemory": "1Gi",
            "images.torch": pod_image,
            "store.existingSecret": "store",
        }
        installed(
            "install", "moco", CHART, *(f"--set={key}={value}" for key, value in values.items())
        )
        for variable, value in node_minio.environment().items():
            patch.setenv(variable, value)
        store = open_store(f"s3://{node_minio.make_bucket()}")
        store.put_folder(_digits(tmp_path_factory.mktemp("digits")), "data")
        environment = {
            "HOME": "/tmp",
            "USER": "moco",
            "OMP_NUM_THREADS": "1",
            "MOCO_S3_ENDPOINT": node_minio.endpoint,
            "AWS_REGION": node_minio.region,
        }
        yield Place(trainer, name, pod_image, store, environment)
    finally:
        patch.undo()
        trainer.core.delete_namespace(name)


def _digits(folder: Path) -> Path:
    """Write the miniature's images, an artifact of its own stage."""
    few = PicturesConfig(train=20, val=20)
    config = DigitsConfig(train_scenes=64, val_scenes=30, pixels=48, pictures=few)
    outputs = {name: str(folder / name) for name in DIGITS.outputs}
    subprocess.run([sys.executable, *DIGITS.argv(config, {}, outputs)], check=True)
    return folder / "imagenet"


@pytest.fixture(scope="module")
def trained(place: Place) -> tuple[int, str]:
    """Follow a TrainJob of two pods to its end; return the follower's exit code and log."""
    return place.ended(place.start(place.follower("two")))


def test_two_pods_train_to_the_end_and_rank_zeros_log_is_the_steps(
    place: Place, trained: tuple[int, str]
) -> None:
    code, said = trained
    assert code == 0, said
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 160
    assert len([event for event in progress if event["done"] == 160]) == 1  # of one rank only
    assert not place.train_jobs()
    assert not place.nodes()


def test_what_two_pods_made_is_what_one_pod_makes(place: Place, trained: tuple[int, str]) -> None:
    assert trained[0] == 0, trained[1]
    argv = place.stage_argv("one", CONFIG.derive(processes=2))
    pod = place.pod("one", ["python", *argv])
    pod["spec"]["containers"][0]["env"].append({"name": "MOCO_IMAGE", "value": place.image})
    assert place.ended(place.start(pod))[0] == 0
    alone, together = place.manifests("one"), place.manifests("two")
    for port in STAGE.outputs:
        assert _form(together[port]) == _form(alone[port])
    assert together["encoder"].digest == alone["encoder"].digest
    metrics = [
        json.loads(place.store.read(f"{name}/metrics/metrics.json")) for name in ("one", "two")
    ]
    assert metrics[0] == metrics[1]


def _form(manifest: Manifest) -> dict[str, Any]:
    """Return what must be equal: not the hashes, nor event files, named after time and host."""
    names = sorted(name for name in manifest.files if not name.startswith("tensorboard/"))
    config = {name: value for name, value in manifest.config.items() if name != "processes"}
    return manifest.model_dump() | {"files": names, "config": config}


@pytest.mark.parametrize("rank", ["0", "1"])
def test_when_a_pod_is_lost_all_continue_from_the_checkpoint(
    place: Place, trained: tuple[int, str], rank: str
) -> None:
    assert trained[0] == 0, trained[1]
    name = f"lost-{rank}"
    follower = place.start(place.follower(name))
    place.await_nodes()
    place.await_checkpoint(name)
    (lost,) = (pod for pod in place.nodes() if pod.metadata.labels[follow.RANK] == rank)
    place.cluster.core.delete_namespaced_pod(
        lost.metadata.name, place.namespace, grace_period_seconds=0
    )
    code, said = place.ended(follower)
    assert code == 0, said
    assert "all pods start again, from the last checkpoint" in said
    assert "continuing from a checkpoint" in said
    again = place.manifests(name)["encoder"].digest
    assert again == place.manifests("two")["encoder"].digest


@pytest.mark.parametrize("grace", [0, 30])
def test_a_follower_that_is_deleted_takes_its_trainjob_with_it(place: Place, grace: int) -> None:
    name = f"cancelled-{grace}"
    follower = place.start(place.follower(name))
    place.await_nodes()
    (job,) = place.train_jobs()
    assert job["metadata"]["labels"]["moco-transfer/stage"] == "pretrain"
    assert job["metadata"]["labels"]["pipeline/runid"] == "run-1"
    place.cluster.core.delete_namespaced_pod(follower, place.namespace, grace_period_seconds=grace)
    wait_for("the TrainJob to go", lambda: not place.train_jobs() and not place.nodes())


def test_a_step_that_is_started_again_takes_its_trainjob_over(place: Place) -> None:
    """The follower dies as a child of the pod's first process, as under Kubeflow's launcher."""
    name = "again"
    first = place.follower(name)
    container = first["spec"]["containers"][0]
    command = container["command"]
    container["command"] = [
        "python",
        "-c",
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); "
        "open('/tmp/pid', 'w').write(str(p.pid)); sys.exit(abs(p.wait()))",
        *command,
    ]
    place.start(first)
    place.await_nodes()
    (before,) = place.train_jobs()
    _execute(place, "follow-again", "import os; os.kill(int(open('/tmp/pid').read()), 9)")
    place.ended("follow-again")
    second = place.follower(name)
    second["metadata"]["name"] = "follow-again-2"
    place.start(second)
    wait_for(
        "the TrainJob to be taken over",
        lambda: place.train_jobs()[0]["metadata"]["ownerReferences"][0]["name"] == "follow-again-2",
    )
    place.cluster.core.delete_namespaced_pod("follow-again", place.namespace)
    code, said = place.ended("follow-again-2")
    assert code == 0, said
    assert "following a TrainJob that goes on" in said
    assert before["metadata"]["name"] in said
    assert "all pods start again" not in said


def _execute(place: Place, pod: str, code: str) -> None:
    from kubernetes import client, config, stream

    # The stream patches its client's requests: one of its own.
    api = config.new_client_from_config(str(place.cluster.kubeconfig))
    stream.stream(
        client.CoreV1Api(api).connect_get_namespaced_pod_exec,
        pod,
        place.namespace,
        command=["python", "-c", code],
        stdout=True,
        stderr=True,
    )


def test_the_stages_own_exit_code_and_words_are_the_steps(place: Place) -> None:
    key = "spoilt/train/0/extra.png"
    store = place.store
    store.write("spoilt/manifest.json", store.read("data/manifest.json"))
    store.write(key, b"nothing")
    argv = place.stage_argv("failing", data="spoilt")
    code, said = place.ended(place.start(place.follower("failing", argv)))
    assert code == ExitCode.BAD_DATA, said
    assert "does not match its manifest" in said
    assert "ended with exit code 65 (BAD_DATA)" in said
    assert not place.train_jobs()


@pytest.fixture
def job(trainer: TestCluster, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainJob]:
    """Give a TrainJob that is not there yet, as this machine's own process would follow it."""
    monkeypatch.setenv("KUBECONFIG", str(trainer.kubeconfig))
    monkeypatch.setattr(follow, "PATIENCE", 5)
    found = TrainJob(
        Cluster(ClusterOptions(namespace=place.namespace)), f"job-{secrets.token_hex(4)}"
    )
    yield found
    found.delete()


def begun(job: TrainJob, config: TrainJobConfig) -> JobFollower:
    command = ["python", "-c", "import time; time.sleep(600)"]
    job.start(train_job(config, command, name=job.name, labels={}, owner=None))
    return JobFollower(job, config.nodes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "nowhere.invalid/moco/torch:1"}, "image nowhere.invalid/moco/torch:1 cannot be"),
        (
            {"secrets": {"X": SecretField(secret="nobody", key="x")}},
            'its container cannot be made: secret "nobody" not found',
        ),
    ],
)
def test_what_hardly_heals_by_itself_ends_the_step_with_its_reason(
    job: TrainJob, place: Place, changes: dict[str, Any], message: str
) -> None:
    image = JOBSET_CONTROLLER.image  # any that the node has
    follower = begun(job, place.config(**({"image": image} | changes)))
    with pytest.raises(ClusterError, match=message):
        follower.follow()


def test_refused_pods_end_the_step_at_once(job: TrainJob, place: Place) -> None:
    runtime = place.objects.get_namespaced_custom_object(
        *API, place.namespace, "trainingruntimes", "moco-transfer"
    )
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    del pod["securityContext"], pod["containers"][0]["securityContext"]
    runtime["metadata"] = {"name": "stock"}
    place.objects.create_namespaced_custom_object(
        *API, place.namespace, "trainingruntimes", runtime
    )
    follower = begun(job, place.config(runtime="stock"))
    with pytest.raises(ClusterError, match=r"its pods are refused: .*violates PodSecurity"):
        follower.follow()


def test_no_room_is_waited_for_with_words(
    job: TrainJob, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    follower = begun(job, place.config(gpus="99"))
    failures: list[ClusterError] = []

    def watch() -> None:
        try:
            follower.follow()
        except ClusterError as error:
            failures.append(error)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    said = ""

    def told() -> bool:
        nonlocal said
        said += "".join(capsys.readouterr())
        return "no node can take it" in said

    wait_for("words about the lack of room", told)
    job.delete()
    thread.join(60)
    assert "was deleted" in str(failures[0])


def test_a_runtime_that_is_missing_is_named(job: TrainJob, place: Place) -> None:
    with pytest.raises(ClusterError, match="nobodys"):
        begun(job, place.config(runtime="nobodys"))
