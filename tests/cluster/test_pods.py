"""What pods in trouble are said to suffer from: on a cluster, and as one was recorded."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.backends.kubeflow.pods import (
    exit_code,
    is_beginning,
    memory_limit,
    sorted_events,
    state_of,
    waits_for_ever,
    why_failed,
    why_waiting,
)
from tests.cluster.troubled import FAILED, WAITING
from tests.servers.cluster import TestCluster, wait_for

RECORDED = Path(__file__).parent / "recorded" / "pods.json"
RECORD = "MOCO_TEST_RECORD"  # set, what a cluster says is recorded anew
TROUBLES = WAITING | FAILED

Known = dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def recorded() -> Known:
    """Give pods and their events by name, as a real API server wrote them."""
    return {
        name: (one["pod"], one["events"]) for name, one in json.loads(RECORDED.read_text()).items()
    }


def words(pod: dict[str, Any], events: list[dict[str, Any]]) -> str:
    if pod["status"]["phase"] == "Pending":
        return why_waiting(pod, sorted_events(events))
    return why_failed(pod) if pod["status"]["phase"] == "Failed" else "runs"


@pytest.mark.parametrize("name", TROUBLES)
def test_a_recorded_pod_is_put_into_words(recorded: Known, name: str) -> None:
    assert re.search(TROUBLES[name].words, words(*recorded[name]))


def test_only_a_missing_image_is_waited_for_without_an_end(recorded: Known) -> None:
    assert {name for name in WAITING if waits_for_ever(recorded[name][0])} == {
        "missing-image",
        "bad-image-name",
    }


def test_only_pods_with_a_node_are_asked_for_events(recorded: Known) -> None:
    asked = {name for name in WAITING if is_beginning(recorded[name][0])}

    assert asked == {"missing-image", "bad-image-name", "no-secret", "no-config-map"}


def test_exit_codes_and_limits_are_read(recorded: Known) -> None:
    codes = {name: exit_code(recorded[name][0]) for name in FAILED}

    assert codes["own-words"] == 70
    assert codes["out-of-memory"] == 137
    assert codes["child-out-of-memory"] == 3
    assert exit_code(recorded["no-gpu"][0]) is None
    assert state_of(recorded["no-gpu"][0]) == ("waiting", {})
    assert memory_limit(recorded["out-of-memory"][0]) == "32Mi"


def test_pods_of_a_cluster_are_put_into_words(
    cluster: TestCluster, namespace: str, pod_image: str
) -> None:
    for name, trouble in TROUBLES.items():
        cluster.core.create_namespaced_pod(namespace, trouble.pod(name, pod_image))

    last: Known = {}
    for name, trouble in TROUBLES.items():

        def told(name: str = name, trouble: Any = trouble) -> bool:
            last[name] = seen(cluster, namespace, name)
            return bool(re.search(trouble.words, words(*last[name])))

        try:
            wait_for(f"the trouble of {name}", told)
        except AssertionError:
            pytest.fail(f"{name}: {words(*last[name])}")
    if os.environ.get(RECORD):
        record(last, pod_image)


def seen(
    cluster: TestCluster, namespace: str, name: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a pod and its events as the API writes them."""
    core = cluster.core
    pod = core.read_namespaced_pod(name, namespace, _preload_content=False)
    events = core.list_namespaced_event(
        namespace, field_selector=f"involvedObject.name={name}", _preload_content=False
    )
    return json.loads(pod.data), json.loads(events.data)["items"]


def record(known: Known, image: str) -> None:
    """Write down what a cluster said, without what is only this cluster's."""
    kept = {}
    for name, (pod, events) in known.items():
        pod["metadata"] = {key: pod["metadata"][key] for key in ("name", "creationTimestamp")}
        for volatile in ("hostIP", "hostIPs", "podIP", "podIPs"):
            pod["status"].pop(volatile, None)
        fields = ("reason", "message", "type", "lastTimestamp", "eventTime")
        kept[name] = {"pod": pod, "events": [{f: e.get(f) for f in fields} for e in events]}
    text = json.dumps(kept, indent=1, sort_keys=True).replace(image, "moco-transfer/torch:1")
    RECORDED.write_text(re.sub(r"lookup (\S+) on [\d.:]+", r"lookup \1", text) + "\n")
