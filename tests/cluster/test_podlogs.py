"""The logs of submitted runs: of pods on a cluster, and lines as a real launcher wrote them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ClusterError
from pipelines.backends.kubeflow import logstream, podlogs
from pipelines.backends.kubeflow.connection import Cluster
from pipelines.backends.kubeflow.logstream import whole_lines
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parts import StepPlaces
from pipelines.backends.kubeflow.podlogs import RunFollower, pods_of_run, pods_of_step, read_pod_log
from pipelines.backends.kubeflow.pods import state_of
from pipelines.backends.kubeflow.record import ClusterRun
from pipelines.backends.kubeflow.workflow import NODE
from pipelines.runs.logs import Event
from tests.servers.cluster import TestCluster, restricted_pod, wait_for

LAUNCHER = Path(__file__).parent / "recorded" / "launcher.log"
TICKS = (
    'i=0; while test "$i" -lt 4; do '
    'echo "{\\"event\\": \\"tick\\", \\"n\\": $i}"; i=$((i+1)); sleep 1.5; done'
)


def test_of_the_launcher_only_the_end_is_kept() -> None:
    events = list(podlogs._events(LAUNCHER.read_text().splitlines()))

    assert [event["event"] for event in events] == [
        "working",
        "image 7.jpg is truncated; remove it",
        "ended",
    ]
    assert [event.get("exit_code") for event in events] == [None, 65, 65]


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "F1123 16:54:51.294138      15 main.go:59] failed to execute component: signal: killed",
            {"event": "ended by a signal: killed", "level": "error", "exit_code": 137},
        ),
        (
            "E1123 16:54:51.2 15 launcher_v2.go:12] cannot upload model",
            {"event": "E1123 16:54:51.2 15 launcher_v2.go:12] cannot upload model"},
        ),
        ("Error: exit status 1 of gcc", {"event": "Error: exit status 1 of gcc"}),
        ("I think therefore", {"event": "I think therefore"}),
    ],
)
def test_a_line_in_a_pods_log(line: str, event: Event) -> None:
    assert list(podlogs._events([line])) == [event]


def test_chunks_are_put_together_to_lines() -> None:
    chunks = [b"one\ntw", b"o\nth\xc3", b"\xa9\n", b"rest"]

    assert list(whole_lines(chunks)) == ["one", "two", "th\u00e9", "rest"]


@pytest.fixture
def place(namespace: str) -> ClusterRun:
    """Where the pods of these tests are."""
    return ClusterRun(
        run="a-run",
        pipeline="p",
        namespace=namespace,
        server="none",
        artifacts="s3://bucket/p/a-run",
    )


@pytest.fixture
def here(
    cluster: TestCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """The cluster as the commands reach it."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    yield Cluster(ClusterOptions(namespace=namespace))


def start(cluster: TestCluster, namespace: str, image: str, step: str, script: str) -> None:
    """Start a pod with the label and the annotation that the platform gives it."""
    pod: dict[str, Any] = restricted_pod(f"pod-{step}", image, ["sh", "-c", script])
    pod["metadata"]["labels"] = {"pipeline/runid": "a-run"}
    pod["metadata"]["annotations"] = {NODE: f"w(0).root(0).{step}(0).executor(0)"}
    pod["spec"]["terminationGracePeriodSeconds"] = 1
    cluster.core.create_namespaced_pod(namespace, pod)


def test_a_log_is_followed_over_broken_connections(
    cluster: TestCluster,
    here: Cluster,
    place: ClusterRun,
    pod_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logstream, "SILENCE", (5, 1))  # a connection breaks off at every pause
    monkeypatch.setattr(logstream, "AGAIN", 0.1)
    monkeypatch.setattr(podlogs, "ASK", 1.0)
    start(cluster, place.namespace, pod_image, "ticking", TICKS)
    start(cluster, place.namespace, pod_image, "other", "echo not asked for; sleep 60")
    wait_for("pods", lambda: running(here, place, "ticking"))

    heard = list(followed(here, place, ["ticking"]).read(rest=True))

    assert [event["n"] for _, event in heard] == list(range(4))
    assert {step for step, _ in heard} == {"ticking"}


def test_a_stream_ends_when_its_pod_is_deleted(
    cluster: TestCluster,
    here: Cluster,
    place: ClusterRun,
    pod_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(cluster, place.namespace, pod_image, "endless", "echo begun; sleep 600")
    wait_for("pods", lambda: running(here, place, "endless"))
    stream = followed(here, place, ["endless"])
    monkeypatch.setattr(podlogs, "ASK", 30.0)
    assert next(stream.read())[1] == {"event": "begun"}

    cluster.core.delete_namespaced_pod("pod-endless", place.namespace)

    monkeypatch.setattr(podlogs, "ASK", 0.0)
    assert list(stream.read(rest=True)) == []


def test_a_pod_that_has_gone_or_not_begun(
    cluster: TestCluster, here: Cluster, place: ClusterRun, pod_image: str
) -> None:
    start(cluster, place.namespace, "registry.invalid/none:1", "waiting", "echo never")
    (waiting,) = wait_for("a pod", lambda: pods_of_step(pods_of_run(here, place), "waiting"))
    assert read_pod_log(here, waiting) == []

    gone = {
        "metadata": {"name": "gone", "namespace": place.namespace},
        "status": {"containerStatuses": [{"name": "main", "state": {"running": {}}}]},
    }
    with pytest.raises(ClusterError, match=f"read the log of pod {place.namespace}/gone"):
        read_pod_log(here, gone)


def followed(cluster: Cluster, place: ClusterRun, steps: list[str]) -> RunFollower:
    places = StepPlaces.whole(place, steps)
    return RunFollower(cluster, lambda: places, place.namespace, steps)


def running(cluster: Cluster, place: ClusterRun, step: str) -> bool:
    pods = pods_of_step(pods_of_run(cluster, place), step)
    return bool(pods) and state_of(pods[0])[0] == "running"
