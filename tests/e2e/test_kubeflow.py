"""The commands against a real Kubeflow Pipelines server, as a user types them.

`MOCO_TEST_KFP` is the server's URL. `MOCO_TEST_KUBECONFIG` and `MOCO_TEST_IMAGE` name the cluster
behind it and the project's image on its nodes; `MOCO_TEST_KFP_STORE` is the store of the
installation as this machine reaches it, if that is not how pods reach it. What a run of all this
costs: about an hour on two cores.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.manifest import read_manifest
from components.core.store import Store
from pipelines.backends.kubeflow.connection import Cluster, cluster_options
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.runs.folder import Run
from tests.charts.chart import CHART
from tests.servers.cluster import TestCluster, wait_for
from tests.servers.helm import Helm, helm
from tests.servers.trainer import trainer

__all__ = ["helm", "trainer"]

# Other scenes each time: the server's cache knows those of earlier tests.
SEED = secrets.randbelow(1 << 30)
TINY = [
    *("--scale", "digits", "--set", "digits.train_scenes=192", "--set", "digits.val_scenes=30"),
    *("--set", "digits.pictures.train=20", "--set", "digits.pictures.val=20"),
    *("--set", f"digits.seed={SEED}"),
]
LINEAR = ["linear", *TINY, "--set", "classification.linear.epochs=1", "--no-checks"]
BOTH = [*LINEAR, "--rows", "random,moco_in1m", "--set", "pretrain.epochs=1"]
RANDOM = [*LINEAR, "--rows", "random"]
TRAINING = [
    *("pretrain", *TINY, "--set", "pretrain.epochs=40", "--set", "pretrain.checkpoint_seconds=1"),
    *("--no-checks", "--no-cache"),
]
CONTINUED = "continuing from a checkpoint"
RUN_SECONDS = 3600

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4000)]


class Moco:
    """The command line, on the cluster of the environment."""

    def __init__(self, runs: Path, environment: dict[str, str]) -> None:
        self.runs = runs
        self.environment = {**environment, "MOCO_RUNS": str(runs)}

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=RUN_SECONDS,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"moco {' '.join(arguments)}: {done.returncode}\n{said}"
        return said

    def submit(self, *arguments: str, command: str = "submit") -> Run:
        """Submit, and return the run."""
        said = self(command, *arguments)
        found = re.search(r"^(\S+): \d+ steps?$", said, re.M)
        assert found, said
        return Run(self.runs / found.group(1))

    def watch(self, run: Run, code: int = 0) -> str:
        """Follow a run to its end."""
        return self("status", run.id, "--watch", code=code)

    def states(self, run: Run) -> dict[str, str]:
        """Return the state of each step, as the cluster says it now."""
        facts = json.loads(self("status", run.id, "--json"))
        return {name: step["state"] for name, step in facts["steps"].items()}


@pytest.fixture(scope="module")
def moco(
    cluster: TestCluster, pod_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moco]:
    server = os.environ.get("MOCO_TEST_KFP")
    if not server:
        pytest.skip("no Kubeflow Pipelines: MOCO_TEST_KFP names no server")
    folder = tmp_path_factory.mktemp("kubeflow")
    options = folder / "cluster.json"
    images = dict.fromkeys(("torch", "detectron2"), pod_image)
    options.write_text(json.dumps({"server": server, "images": images}))
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig),
        "MOCO_CLUSTER": str(options),
    }
    store = os.environ.get("MOCO_TEST_KFP_STORE")
    if store:
        environment["MOCO_S3_ENDPOINT"] = store
    with pytest.MonkeyPatch.context() as patch:
        for name in ("KUBECONFIG", "MOCO_CLUSTER", "MOCO_S3_ENDPOINT"):
            if name in environment:
                patch.setenv(name, environment[name])
        yield Moco(folder / "runs", environment)


@pytest.fixture(scope="module")
def finished(moco: Moco) -> Run:
    """A run of Table 1's linear row that ended well."""
    run = moco.submit(*BOTH)
    moco.watch(run)
    return run


@pytest.fixture(scope="module")
def undisturbed(moco: Moco) -> Run:
    """A run of a training that nobody stopped."""
    run = moco.submit(*TRAINING)
    moco.watch(run)
    assert CONTINUED not in moco("logs", run.id, "pretrain_moco_in1m")
    return run


def store_of(run: Run) -> Store:
    place = ClusterRun.of(run)
    assert place is not None
    return Cluster(cluster_options()).store(place.artifacts)


def await_checkpoint(run: Run) -> None:
    """Wait until a pre-training has saved."""
    store = store_of(run)
    wait_for(
        "a checkpoint",
        lambda: any(".state/" in entry.key for entry in store.list("pretrain-moco-in1m")),
        RUN_SECONDS,
    )


def test_a_finished_run_is_shown_read_pulled_and_reported_offline(
    moco: Moco, finished: Run, tmp_path: Path
) -> None:
    states = moco.states(finished)
    # A random initialisation is the same for all data: the cache may know it.
    assert states.pop("convert_random") in ("finished", "reused")
    assert set(states.values()) == {"finished"}
    assert finished.id in moco("status")
    assert "layout written" in moco("logs", finished.id, "digits")

    report_as_pulled(moco, finished, tmp_path)
    assert "linear" in moco("explain", finished.id, "linear/random/imagenet")


def report_as_pulled(moco: Moco, run: Run, folder: Path) -> dict[str, Any]:
    """Pull a run, build its report anew without the cluster, and return it: it is the same."""
    moco("pull", run.id, "--output", str(folder))
    offline = Moco(folder, {"PATH": os.environ["PATH"], "KUBECONFIG": "/nowhere"})
    offline("report", str(folder / run.id), "-o", str(folder / "again"))
    made = run.artifact("report", "report").name
    pulled = json.loads((folder / run.id / "report" / made / "report.json").read_text())
    again: dict[str, Any] = json.loads((folder / "again" / "report.json").read_text())
    assert pulled == again
    return again


def test_the_whole_miniature_runs_to_a_report_that_shows_what_the_paper_shows(
    moco: Moco, tmp_path: Path
) -> None:
    """Every step at its full size; about half an hour on two cores."""
    run = moco.submit("appendix", "--scale", "digits", "--no-cache")
    moco.watch(run)
    assert set(moco.states(run).values()) == {"finished"}
    assert "knn_accuracy" in moco("logs", run.id, "pretrain_moco_in1m")

    report = report_as_pulled(moco, run, tmp_path)
    cells = [cell for table in report["tables"] for row in table["rows"] for cell in row["cells"]]
    assert {cell["state"] for cell in cells} == {"measured", "unobtainable"}
    (linear,) = (table for table in report["tables"] if table["key"] == "linear")
    top1 = {row["key"]: row["cells"][0]["values"][0]["measured"] for row in linear["rows"]}
    assert top1["random"] < top1["moco_in1m"] < top1["supervised"]


def test_the_same_plan_again_comes_from_the_cache_and_without_it_runs_anew(
    moco: Moco, finished: Run, tmp_path: Path
) -> None:
    cached = moco.submit(*BOTH)
    moco.watch(cached)
    assert set(moco.states(cached).values()) == {"reused"}
    moco("pull", cached.id, "--output", str(tmp_path))
    moco("pull", finished.id, "--output", str(tmp_path))
    encoders = [
        read_manifest(tmp_path / run.id / "pretrain_moco_in1m" / "encoder").digest
        for run in (finished, cached)
    ]
    assert encoders[0] == encoders[1]

    anew = moco.submit(*RANDOM, "--no-cache")
    moco.watch(anew)
    assert set(moco.states(anew).values()) == {"finished"}


def test_one_step_is_run_again_alone_and_with_all_that_depends_on_it(
    moco: Moco, finished: Run
) -> None:
    alone = moco.submit(finished.id, "linear_random_0", command="rerun")
    moco.watch(alone)
    assert moco.states(alone) == {"linear_random_0": "finished"}
    downstream = moco.submit(finished.id, "linear_random_0", "--downstream", command="rerun")
    moco.watch(downstream)
    assert moco.states(downstream) == {"linear_random_0": "finished", "report": "finished"}
    assert finished.id in moco("status", downstream.id)
    said = moco("rerun", finished.id, "linear_randon_0", code=64)
    assert "linear_random_0" in said


def test_fill_runs_only_what_the_empty_cells_need(moco: Moco, finished: Run) -> None:
    store = store_of(finished)
    for entry in store.list("linear-random-0"):
        store.delete(entry.key)
    others = [run for run in moco.runs.iterdir() if run.is_dir() and run.name.startswith("linear")]
    for folder in others:  # the cell was measured again by other tests
        run = Run(folder)
        if ClusterRun.of(run) and run.id != finished.id:
            for entry in store_of(run).list("linear-random-0"):
                store_of(run).delete(entry.key)

    filling = moco.submit(*BOTH, "--fill")
    assert list(filling.record.steps) == ["linear_random_0", "report"]
    moco.watch(filling)
    assert "Every cell" in moco("submit", *BOTH, "--fill")


def test_a_failed_run_says_why_and_goes_on_where_it_failed(moco: Moco) -> None:
    run = moco.submit(*RANDOM, "--set", f"digits.seed={SEED + 1}")
    store = store_of(run)
    listed = wait_for("the data", lambda: uploaded(store, "imagenet"), RUN_SECONDS)
    image = next(key for key in listed if key.endswith(".JPEG"))
    kept = store.read(image)
    store.write(image, b"not what the manifest says")

    said = moco.watch(run, code=65)
    assert Path(image).name in said
    assert moco.states(run)["report"] == "skipped"
    assert "linear_random_0" in moco("logs", run.id)

    store.write(image, kept)
    moco("rerun", run.id, "--failed")
    moco.watch(run)
    assert set(moco.states(run).values()) <= {"finished", "reused"}


def uploaded(store: Store, port: str) -> list[str]:
    """Return the keys of an artifact's files once all of them are there."""
    keys = [entry.key for entry in store.list("digits") if f"/{port}/" in entry.key]
    manifests = [key for key in keys if key.endswith("/manifest.json")]
    whole = [
        f"{manifest.rpartition('/')[0]}/{name}" in keys
        for manifest in manifests
        for name in json.loads(store.read(manifest))["files"]
    ]
    return keys if whole and all(whole) else []


PARTS = [*BOTH, "--trials", "2", "--cluster", "workflow_size=45000", "--no-cache"]


def test_a_run_too_large_for_a_workflow_is_one_run_through_kills(
    moco: Moco, cluster: TestCluster, tmp_path: Path
) -> None:
    """Whatever follows its parts is deleted again and again while the parts begin each other."""
    run = moco.submit(*PARTS)
    place = ClusterRun.of(run)
    assert place.cut
    killed = 0

    def over() -> bool:
        nonlocal killed
        selector = "moco-transfer/stage=next-parts"
        pods = cluster.core.list_namespaced_pod(place.namespace, label_selector=selector).items
        if killed < 3:
            for pod in (pod for pod in pods if pod.status.phase == "Running"):
                killed += 1
                cluster.core.delete_namespaced_pod(
                    pod.metadata.name, place.namespace, grace_period_seconds=0
                )
            time.sleep(20)
        return "running" not in moco("status", run.id).partition("\n")[0]

    wait_for("the run to end", over, RUN_SECONDS)

    assert killed
    assert set(moco.states(run).values()) == {"finished"}
    report_as_pulled(moco, run, tmp_path)
    assert "linear" in moco("explain", run.id, "linear/moco_in1m/imagenet")
    assert "linear_moco_in1m_1" in moco("logs", run.id)


def test_a_failure_in_a_part_holds_back_only_what_depends_on_it(moco: Moco) -> None:
    run = moco.submit(*PARTS, "--set", f"digits.seed={SEED + 2}")
    place = ClusterRun.of(run)
    pipeline = Cluster(cluster_options()).store(place.store)

    def encoder() -> str | None:
        keys = [entry.key for entry in pipeline.list() if "/pretrain-moco-in1m/" in entry.key]
        whole = any(key.endswith("/encoder/manifest.json") for key in keys)
        mine = [key for key in keys if key.endswith("/encoder/encoder.safetensors")]
        known = {key for key in mine if place_of_part(pipeline, place, key)}
        return max(known) if whole and known else None

    key = wait_for("the encoder", encoder, RUN_SECONDS)
    kept = pipeline.read(key)
    pipeline.write(key, b"not what the manifest says")

    moco.watch(run, code=65)

    states = moco.states(run)
    assert states["convert_moco_in1m"] == "failed"
    assert states["linear_moco_in1m_1"] == states["report"] == "skipped"
    assert states["linear_random_1"] == "finished"
    pipeline.write(key, kept)
    moco("rerun", run.id, "--failed")
    moco.watch(run)
    assert set(moco.states(run).values()) == {"finished"}


def place_of_part(pipeline: Store, place: ClusterRun, key: str) -> bool:
    """Say whether something lies in a part of a run."""
    begun = [entry.key for entry in pipeline.list(f"{place.run}/parts") if "begun" in entry.key]
    runs = {json.loads(pipeline.read(name))["run"] for name in begun}
    return key.partition("/")[0] in runs


def test_a_training_whose_pod_is_deleted_ends_with_the_same_weights(
    moco: Moco, cluster: TestCluster, undisturbed: Run, tmp_path: Path
) -> None:
    """The pod is started again, and goes on from the checkpoint beside its output."""
    disturbed = moco.submit(*TRAINING)
    place = ClusterRun.of(disturbed)
    assert place is not None
    await_checkpoint(disturbed)
    selector = f"pipeline/runid={place.run},moco-transfer/stage=pretrain"
    (pod,) = [
        pod
        for pod in cluster.core.list_namespaced_pod(place.namespace, label_selector=selector).items
        if pod.status.phase == "Running"
    ]
    cluster.core.delete_namespaced_pod(pod.metadata.name, place.namespace, grace_period_seconds=0)
    time.sleep(1)
    moco.watch(disturbed)
    assert len({weights_of(moco, run, tmp_path) for run in (disturbed, undisturbed)}) == 1
    assert CONTINUED in moco("logs", disturbed.id, "pretrain_moco_in1m")


def weights_of(moco: Moco, run: Run, folder: Path) -> frozenset[tuple[str, str]]:
    """Pull a pre-training, and return the hashes of its weights, by file."""
    moco("pull", run.id, "--output", str(folder))
    files = read_manifest(folder / run.id / "pretrain_moco_in1m" / "encoder").files
    weights = frozenset((n, e.sha256) for n, e in files.items() if n.endswith(".safetensors"))
    assert weights
    return weights


def test_a_stopped_training_goes_on_in_a_new_run_to_the_same_weights(
    moco: Moco, undisturbed: Run, tmp_path: Path
) -> None:
    stopped = moco.submit(*TRAINING)
    await_checkpoint(stopped)
    moco("cancel", stopped.id)
    moco.watch(stopped, code=75)
    assert moco.states(stopped)["pretrain_moco_in1m"] == "interrupted"

    again = moco.submit(stopped.id, "pretrain_moco_in1m", "--continue", command="rerun")
    moco.watch(again)
    assert CONTINUED in moco("logs", again.id, "pretrain_moco_in1m")
    assert len({weights_of(moco, run, tmp_path) for run in (again, undisturbed)}) == 1


@pytest.fixture
def chart(helm: Helm, trainer: TestCluster) -> Iterator[None]:
    """Install the chart with the training runtime in the runs' namespace."""
    there = Helm(helm.binary, trainer.kubeconfig, "kubeflow")
    runtime = ("--set", "trainer.enabled=true", "--set", "trainer.sharedMemory=1Gi")
    there("install", "moco-nodes", CHART, *runtime)
    try:
        yield
    finally:
        there("uninstall", "moco-nodes")


@pytest.mark.usefixtures("chart")
def test_a_training_over_two_nodes_makes_what_two_processes_make(
    moco: Moco, tmp_path: Path
) -> None:
    """A TrainJob in a pipeline's run; its runs find their account where the chart wrote it down."""
    tiny = ("pretrain", *TINY, "--set", "pretrain.epochs=2")
    together = moco.submit(*tiny, "--cluster", "nodes.pretrain=2")
    moco.watch(together)
    assert set(moco.states(together).values()) == {"finished"}
    assert "deleting the TrainJob" in moco("logs", together.id, "pretrain_moco_in1m")
    alone = moco.submit(*tiny, "--set", "pretrain.processes=2")
    moco.watch(alone)
    assert len({weights_of(moco, run, tmp_path) for run in (together, alone)}) == 1
